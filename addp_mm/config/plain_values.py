# Copyright (c) addp_mm contributors. Apache-2.0.
"""Values of configs as JSON and YAML have them, and back: tuples, numbers as keys, classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

TUPLE, ITEMS = '_tuple_', '_items_'


def to_plain(value: Any, key: str = '') -> Any:
    """A value of a config as JSON has it.

    A tuple becomes ``{'_tuple_': […]}``, and a dict with keys that are no text
    ``{'_items_': [[key, value], …]}``. A class becomes its dotted name.

    Args:
        value: The value.
        key: Its key, for the error. Defaults to ''.

    Raises:
        ValueError: The value cannot be written, such as a function or an array.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return {TUPLE: [to_plain(item, f'{key}.{index}') for index, item in enumerate(value)]}
    if isinstance(value, list):
        return [to_plain(item, f'{key}.{index}') for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        inside = {name: to_plain(item, f'{key}.{name}'.lstrip('.')) for name, item in value.items()}
        if all(isinstance(name, str) for name in inside) and not {TUPLE, ITEMS} & inside.keys():
            return inside
        return {ITEMS: [[to_plain(name, key), item] for name, item in inside.items()]}
    if isinstance(value, type):
        return f'{value.__module__}.{value.__qualname__}'
    raise ValueError(f'{key} is {value!r:.60}, a {type(value).__name__}, which JSON and YAML cannot hold')


def from_plain(value: Any) -> Any:
    """The value that :func:`to_plain` wrote.

    Raises:
        TypeError: ``_tuple_`` or ``_items_`` does not hold a list, or a key is a list or a dict.
        ValueError: An item of ``_items_`` is not a pair.
    """
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(from_plain(item) for item in value)
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and TUPLE in value:
        return tuple(from_plain(_list(value[TUPLE], TUPLE)))
    if len(value) == 1 and ITEMS in value:
        return {from_plain(name): from_plain(item) for name, item in _list(value[ITEMS], ITEMS)}
    return {name: from_plain(item) for name, item in value.items()}


def _list(value: Any, key: str) -> list:
    if not isinstance(value, list):
        raise TypeError(f'{key} must hold a list, got {value!r:.40}')
    return value
