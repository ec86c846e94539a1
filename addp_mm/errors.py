# Copyright (c) addp_mm contributors. Apache-2.0.
"""Errors that you can fix, how command line tools print them, and how they name things."""

import difflib
import errno
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

SAME_COMMAND = 'give the same command again'
RESUME = 'give the same command with --resume: it continues from the last complete checkpoint'
# EFBIG is the limit of the size of a file
_FULL = {getattr(errno, name, None) for name in ('ENOSPC', 'EDQUOT', 'EROFS', 'EFBIG')}
#: Exit status of a process that ends because another one is gone (EX_UNAVAILABLE of sysexits.h).
LOST_STATUS = 69


class UserError(Exception):
    """Base of addp_mm's errors about configs, data, checkpoints and the progress of a training.

    The message names the fault, its location and a remedy, so that no traceback is needed. A
    subclass also derives from the built-in error that it specialises, such as ValueError.
    """


class ConfigError(UserError, ValueError):
    """A mistake in a config, an option or a path, found before anything is built."""


@contextmanager
def exit_on_user_error(*others: type[Exception], remedy: str = SAME_COMMAND) -> Iterator[None]:
    """End the process with the line ``error: …`` instead of a traceback on a :class:`UserError`.

    An error of the system about a full disk or a read-only folder ends it in the same way.

    Args:
        *others: More classes of errors to print in this way. All others keep their traceback.
        remedy: What to do after room was made on the disk. Defaults to the same command.

    Raises:
        SystemExit: Replaces these errors.
    """
    kinds: tuple[type[Exception], ...] = (UserError, *others)
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and is_full(error) and not isinstance(error, UserError):
            sys.exit(f'error: {cannot_write(_written_file(error), error, remedy)}')
        if isinstance(error, kinds):
            sys.exit(f'error: {error}')
        raise


def is_full(error: OSError) -> bool:
    """Whether an error says that the disk or a quota is full, or that the folder is read-only."""
    return error.errno in _FULL


def cannot_write(path: object, error: OSError, remedy: str = SAME_COMMAND) -> str:
    """The message about a file that the system cannot write.

    Args:
        path: The file.
        error: The error of the system.
        remedy: What to do after the cause is repaired. Defaults to the same command.
    """
    return (
        f'{path} cannot be written ({error.strerror or error}). All complete files stay: free some room, or repair the '
        f'folder, and {remedy}'
    )


def _written_file(error: OSError) -> str:
    """Name of the file that was written; the system names it only if it cannot be opened."""
    if error.filename:
        return os.fsdecode(error.filename)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        for value in frame.f_locals.values():
            name = getattr(value, 'name', None) if isinstance(value, io.IOBase) else None
            if isinstance(name, str):
                return name
    return 'a file'


@contextmanager
def exit_on_interrupt(message: str, with_sigterm: bool = True) -> Iterator[None]:
    """End the process with the line ``interrupted: …`` on Ctrl-C and on SIGTERM.

    SIGTERM then stops like Ctrl-C: temporary files are removed, and worker processes end too. The
    exit status is that of a process which the signal ended: 130 or 143.

    Args:
        message: What is left of the work, and how to go on.
        with_sigterm: Whether SIGTERM stops like Ctrl-C; else it ends the process at once, as
            launchers of several processes need it. Defaults to True.

    Raises:
        SystemExit: Replaces KeyboardInterrupt.
    """
    is_handled = with_sigterm and threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, _interrupt) if is_handled else None
    try:
        yield
    except KeyboardInterrupt as error:
        print(f'interrupted: {message}', file=sys.stderr, flush=True)
        sys.exit(128 + (error.args[0] if error.args else signal.SIGINT))
    finally:
        if is_handled:
            signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, _frame: object) -> None:
    """Handle a signal as Ctrl-C."""
    raise KeyboardInterrupt(number)


def first_few(things: Iterable, count: int = 6, separator: str = ', ') -> str:
    """Join the first ``count`` items, and count the others: ``'a, b and 3 more'``.

    Args:
        things: Items that ``str`` makes readable.
        count: Number of items to name. Defaults to 6.
        separator: Text between them. Defaults to ', '.

    Returns:
        One string; 'none' if there is nothing.
    """
    words = [str(thing) for thing in things]
    more = f' and {len(words) - count} more' if len(words) > count else ''
    return (separator.join(words[:count]) or 'none') + more


def suggest(name: str, candidates: Iterable[object], cutoff: float = 0.6) -> str:
    """Return ``'; did you mean a, b?'`` with the candidates most similar to ``name``, else ''.

    Args:
        name: The wrong name.
        candidates: Names that exist.
        cutoff: Least similarity, from 0 to 1. Defaults to 0.6.
    """
    similar = difflib.get_close_matches(name, sorted({str(c) for c in candidates}), n=3, cutoff=cutoff)
    return f'; did you mean {", ".join(similar)}?' if similar else ''
