# Copyright (c) addp_mm contributors. Apache-2.0.
"""Modules made up by a test."""

from types import ModuleType
from typing import Any


def module_with(**names: Any) -> ModuleType:
    """A module with these names, such as a class that does not have the fault of a patch."""
    module = ModuleType('healthy')
    vars(module).update(names)
    return module
