# Copyright (c) addp_mm contributors. Apache-2.0.
"""Errors of model components. You fix them in the config or in the data."""

from addp_mm.errors import UserError


class OptionError(UserError, ValueError):
    """An option of a component is wrong, or two options contradict each other."""


class ImageSizeError(UserError, ValueError):
    """A component cannot process images of this height and width."""
