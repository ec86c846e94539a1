# Copyright (c) addp_mm contributors. Apache-2.0.
"""Build the components of an algorithm."""

from __future__ import annotations

from typing import Any

from torch import nn

from addp_mm.registry import MODELS


def build_component(component: dict | nn.Module) -> Any:
    """Build a component of an algorithm from its config; return a module unchanged."""
    return component if isinstance(component, nn.Module) else MODELS.build(component)
