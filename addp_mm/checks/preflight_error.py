# Copyright (c) addp_mm contributors. Apache-2.0.
"""The error of the checks before training."""

from addp_mm.errors import UserError


class PreflightError(UserError, RuntimeError):
    """A fault that would stop or invalidate the training later, found before the first step."""
