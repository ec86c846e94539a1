# Copyright (c) addp_mm contributors. Apache-2.0.
"""Stand-ins for what numpy's pickles name, while a file of a stranger is read.

numpy believes the state of a dtype in a pickle. A file can so declare that an array of bytes holds
objects, and numpy then takes the bytes for addresses: the process crashes, or worse. These classes
take the same pickles, and accept plain types only.
"""

from __future__ import annotations

import math
import pickle
import re
from typing import Any

import numpy as np

_CORE = getattr(np, '_core', None) or np.core
#: Truth values, numbers, text, objects; no structures and no dates.
_PLAIN = re.compile(r'[<>|=]?([biufcSU]\d{1,9}|O8?)')


class _Type:
    """Replaces ``numpy.dtype``.

    Args:
        text: Such as 'f8'.
        *_: Other arguments of a pickled dtype. They have no effect.
    """

    def __init__(self, text: Any, *_: Any) -> None:
        if not isinstance(text, str) or not _PLAIN.fullmatch(text):
            raise pickle.UnpicklingError(f'an array of the type {text!r:.40}; only numbers, text and objects are read')
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """Replaces ``numpy.ndarray``; it is empty until its state is set."""

    def __new__(cls, *_: Any) -> _Array:
        """Make an empty array; the arguments have no effect."""
        return super().__new__(cls, 0)

    def __setstate__(self, state: tuple) -> None:  # type: ignore[override]
        _, shape, kind, in_columns, content = state
        if not isinstance(kind, _Type) or not all(type(side) is int and side >= 0 for side in shape):
            raise pickle.UnpicklingError('an array has no plain type or no possible shape')
        is_listed = kind.dtype.hasobject
        size = math.prod(shape) * (1 if is_listed else kind.dtype.itemsize)
        if not isinstance(content, list if is_listed else (bytes, str)) or len(content) != size:
            raise pickle.UnpicklingError(f'an array of shape {tuple(shape)} has other content')
        checked: Any = (1, tuple(shape), kind.dtype, bool(in_columns), content)
        super().__setstate__(checked)


def _reconstruct(kind: Any, *_: Any) -> _Array:
    """Replaces numpy's function of that name."""
    if kind is not _Array:
        raise pickle.UnpicklingError(f'an array of the class {kind!r:.60}')
    return _Array()


def _scalar(kind: Any, content: Any = b'') -> Any:
    """Replaces ``numpy.core.multiarray.scalar``."""
    content = content.encode('latin1') if isinstance(content, str) else content
    if not isinstance(kind, _Type) or kind.dtype.hasobject or len(content) != kind.dtype.itemsize:
        raise pickle.UnpicklingError('a number has no plain type, or not its size')
    return _CORE.multiarray.scalar(kind.dtype, content)


def stand_ins() -> list[tuple[Any, str]]:
    """Pairs of an object and the name that it replaces, for ``torch.serialization``."""
    found: list[tuple[Any, str]] = [(_Type, 'numpy.dtype'), (_Array, 'numpy.ndarray')]
    for module in ('numpy.core', 'numpy._core'):
        found += [(_reconstruct, f'{module}.multiarray._reconstruct'), (_scalar, f'{module}.multiarray.scalar')]
    return found


def with_numpy(value: Any, seen: dict[int, tuple[Any, Any]] | None = None) -> Any:
    """Replace the stand-ins in what was read by numpy's own objects.

    Args:
        value: What was read. Dicts, lists and objects are changed in place.
        seen: For the function itself: by the id of a visited object, the object and what replaces
            it. Defaults to None.

    Returns:
        The value with arrays and dtypes of numpy.
    """
    seen = {} if seen is None else seen
    if isinstance(value, _Type):
        return value.dtype
    if isinstance(value, (str, bytes, int, float)) or value is None:
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    if isinstance(value, _Array):
        array = value.view(np.ndarray)
        seen[id(value)] = value, array
        if array.dtype.hasobject:
            _replace_each(array.ravel('K'), range(array.size), seen)  # a view, since there are no gaps
        return array
    if isinstance(value, tuple) and type(value) is tuple:
        items = [with_numpy(item, seen) for item in value]
        is_changed = any(new is not old for new, old in zip(items, value, strict=True))
        return seen.setdefault(id(value), (value, tuple(items) if is_changed else value))[1]
    seen[id(value)] = value, value
    if isinstance(value, dict):
        _replace_each(value, list(dict.keys(value)), seen)
    elif isinstance(value, list):
        _replace_each(value, range(len(value)), seen)
    if hasattr(value, '__dict__') and not isinstance(value, type):
        _replace_each(vars(value), list(vars(value)), seen)
    return value


def _replace_each(items: Any, keys: Any, seen: dict[int, tuple[Any, Any]]) -> None:
    for key in keys:
        old = items[key]
        new = with_numpy(old, seen)
        if new is not old:
            items[key] = new
