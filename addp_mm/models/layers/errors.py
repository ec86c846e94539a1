# Copyright (c) addp_mm contributors. Apache-2.0.
"""Errors of model parts whose remedy is in the config or the data."""

from addp_mm.errors import UserError


class OptionError(UserError, ValueError):
    """Options of a part of a model that are wrong or do not go together; the message says which."""


class ImageSizeError(UserError, ValueError):
    """Images whose height or width a part of a model cannot take; the message says what to do."""
