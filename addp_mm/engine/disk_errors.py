# Copyright (c) addp_mm contributors. Apache-2.0.
"""End a run in one line if its log or curves cannot be written."""

from __future__ import annotations

import logging
import sys
import threading
from functools import partial

from addp_mm.checkpoints.atomic_write import FileWriteError
from addp_mm.errors import RESUME, cannot_write, is_full


def stop_on_full_disk(logger: logging.Logger, remedy: str = RESUME) -> None:
    """Raise an error in a run if the disk of its log is full.

    Python would print a traceback for each line of the log. The thread that writes TensorBoard's
    file prints none either: its error reaches the run with the next value.

    Args:
        logger: The logger of a runner.
        remedy: What to do after room was made on the disk. Defaults to
            :data:`~addp_mm.errors.RESUME`.
    """
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = partial(_raise_full, handler, remedy)  # type: ignore[method-assign]
    if threading.excepthook is not _excepthook:
        global _previous
        _previous, threading.excepthook = threading.excepthook, _excepthook


_previous = threading.excepthook


def _raise_full(handler: logging.FileHandler, remedy: str, record: logging.LogRecord) -> None:
    error = sys.exc_info()[1]
    if isinstance(error, OSError) and is_full(error):
        raise FileWriteError(cannot_write(handler.baseFilename, error, remedy)) from error
    logging.FileHandler.handleError(handler, record)


def _excepthook(arguments: threading.ExceptHookArgs) -> None:
    if not (isinstance(arguments.exc_value, OSError) and is_full(arguments.exc_value)):
        _previous(arguments)
