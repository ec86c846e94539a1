# Copyright (c) addp_mm contributors. Apache-2.0.
"""The error of files that hold more than data."""

from addp_mm.errors import UserError


class UnsafeFileError(UserError, ValueError):
    """A file holds code, or claims more memory than it can have. Nothing of it was run."""
