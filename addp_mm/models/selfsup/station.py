# Copyright (c) addp_mm contributors. Apache-2.0.
from __future__ import annotations

from torch import nn

from addp_mm.registry import MODELS


def build_station(station: dict | nn.Module) -> nn.Module:
    """A station of an algorithm from its config, or itself where it is a module already."""
    return station if isinstance(station, nn.Module) else MODELS.build(station)
