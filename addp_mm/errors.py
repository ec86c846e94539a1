# Copyright (c) addp_mm contributors. Apache-2.0.
"""Errors that their reader can mend, and how command line tools report them."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Base of the package's own errors about configs, data, checkpoints and the course of a training.

    The message says what is wrong and what to do; where in the code it was found does not matter.
    Subclasses also derive from the built-in error that they are a case of.
    """


class ConfigError(UserError, ValueError):
    """A mistake in a config, an option or a path. It is found before anything is built or written."""


@contextmanager
def reported_in_words(*others: type[Exception]) -> Iterator[None]:
    """End the process with ``error: …`` on a :class:`UserError`; every other error keeps its traceback.

    Args:
        *others: Classes to treat alike.

    Raises:
        SystemExit: In the place of these errors.
    """
    try:
        yield
    except (UserError, *others) as error:
        sys.exit(f'error: {error}')


def first_few(things: Iterable, count: int = 6, separator: str = ', ') -> str:
    """The first ``count`` things and how many more there are: ``'a, b and 3 more'``.

    Args:
        things: Anything that ``str`` turns into words.
        count: How many are named.
        separator: What stands between them.

    Returns:
        Words in one string; 'none' where there is nothing.
    """
    words = [str(thing) for thing in things]
    more = f' and {len(words) - count} more' if len(words) > count else ''
    return (separator.join(words[:count]) or 'none') + more
