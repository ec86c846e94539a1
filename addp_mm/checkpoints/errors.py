# Copyright (c) addp_mm contributors. Apache-2.0.
"""Errors about checkpoints."""

from addp_mm.errors import UserError


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be used. The message names the file and a remedy."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """The checkpoint does not exist."""
