# Copyright (c) addp_mm contributors. Apache-2.0.
"""Errors that the user can fix, and how command line tools report them."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Base of the package's own errors about configs, data, checkpoints and training.

    The message says what is wrong, where, and what to do, so no traceback is needed. Subclasses
    also derive from the built-in error that fits.
    """


class ConfigError(UserError, ValueError):
    """A mistake in a config, an option or a path, found before anything is built or written."""


@contextmanager
def reported_in_words(*others: type[Exception]) -> Iterator[None]:
    """End the process with ``error: …`` on a :class:`UserError`. Other errors keep their traceback.

    Args:
        *others: Further classes that are reported in the same way.

    Raises:
        SystemExit: Replaces these errors.
    """
    reported: tuple[type[Exception], ...] = (UserError, *others)
    try:
        yield
    except reported as error:
        sys.exit(f'error: {error}')


def first_few(things: Iterable, count: int = 6, separator: str = ', ') -> str:
    """The first ``count`` things and the number of the others: ``'a, b and 3 more'``.

    Args:
        things: Objects that ``str`` turns into words.
        count: Number of things to name. Defaults to 6.
        separator: Text between them. Defaults to ', '.

    Returns:
        One string; 'none' if there are no things.
    """
    words = [str(thing) for thing in things]
    more = f' and {len(words) - count} more' if len(words) > count else ''
    return (separator.join(words[:count]) or 'none') + more
