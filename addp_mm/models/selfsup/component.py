# Copyright (c) addp_mm contributors. Apache-2.0.
"""Components of an algorithm, from their configs."""

from __future__ import annotations

from typing import Any

from torch import nn

from addp_mm.registry import MODELS


def build_component(component: dict | nn.Module) -> Any:
    """Build a component of an algorithm from its config; a module is returned as it is."""
    return component if isinstance(component, nn.Module) else MODELS.build(component)
