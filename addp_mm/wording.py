# Copyright (c) addp_mm contributors. Apache-2.0.
"""How messages list things."""
from collections.abc import Iterable


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
