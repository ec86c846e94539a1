# Copyright (c) addp_mm contributors. Apache-2.0.
"""Errors that you can fix, how command line tools print them, and how they name things."""

import difflib
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

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
def exit_on_user_error(*others: type[Exception]) -> Iterator[None]:
    """End the process with the line ``error: …`` instead of a traceback on a :class:`UserError`.

    Args:
        *others: More classes of errors to print in this way. All others keep their traceback.

    Raises:
        SystemExit: Replaces these errors.
    """
    kinds: tuple[type[Exception], ...] = (UserError, *others)
    try:
        yield
    except kinds as error:
        sys.exit(f'error: {error}')


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
