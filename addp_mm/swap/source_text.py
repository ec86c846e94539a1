# Copyright (c) addp_mm contributors. Apache-2.0.
"""Values of a config as Python source, in the layout of a formatter."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping
from typing import Any

COLUMNS = 120
INDENT = ' ' * 4


def source_of(value: Any, column: int = 0, indent: int = 0) -> str:
    """Python source of a value, in one line if it fits, else one item in each line.

    Args:
        value: Numbers, strings, None, lists, tuples and dicts.
        column: Columns of the first line that are used already, with what follows the value.
            Defaults to 0.
        indent: Levels of the line in which the value begins. Defaults to 0.

    >>> print(source_of(dict(type='FPN', in_channels=[8, 16])))
    dict(type='FPN', in_channels=[8, 16])
    """
    short = in_one_line(value)
    if column + len(short) <= COLUMNS or not isinstance(value, Mapping | list | tuple) or not value:
        return short
    start, end = _brackets(value)
    margin = INDENT * (indent + 1)
    lines = [
        f'{margin}{name}{source_of(item, len(margin) + len(name) + 1, indent + 1)},' for name, item in _items(value)
    ]
    return '\n'.join([start, *lines, f'{INDENT * indent}{end}'])


def in_one_line(value: Any) -> str:
    """Python source of a value, in one line of any length."""
    if not isinstance(value, Mapping | list | tuple):
        return repr(value)
    start, end = _brackets(value)
    inner = ', '.join(f'{name}{in_one_line(item)}' for name, item in _items(value))
    return f'{start}{inner}{"," if isinstance(value, tuple) and len(value) == 1 else ""}{end}'


def _brackets(value: Any) -> tuple[str, str]:
    if isinstance(value, Mapping):
        return ('dict(', ')') if _is_call(value) else ('{', '}')
    return ('(', ')') if isinstance(value, tuple) else ('[', ']')


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what stands before each item, ``'key='`` or nothing, and the item."""
    if not isinstance(value, Mapping):
        yield from (('', item) for item in value)
    elif _is_call(value):
        yield from ((f'{key}=', item) for key, item in value.items())
    else:
        yield from ((f'{key!r}: ', item) for key, item in value.items())


def _is_call(value: Mapping) -> bool:
    """Whether ``dict(key=…)`` can hold the keys."""
    return all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value)
