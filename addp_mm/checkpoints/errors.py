# Copyright (c) addp_mm contributors. Apache-2.0.
"""Errors about checkpoints."""

from addp_mm.errors import UserError


class CheckpointError(UserError, RuntimeError):
    """A file cannot be used as a checkpoint. The message names the file and says what to do."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """There is no such file."""
