# Copyright (c) addp_mm contributors. Apache-2.0.
"""Values at which two configs differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

#: What mmengine adds when it reads a config, and what only imports modules.
_NOT_COMPARED = ('_scope_', 'custom_imports')


class Difference(NamedTuple):
    """A value that two configs do not share. A missing value is :data:`ABSENT`."""

    key: str
    before: Any
    after: Any


class _Absent:
    def __repr__(self) -> str:
        return '(absent)'


ABSENT = _Absent()


def differences(before: Any, after: Any, key: str = '') -> Iterator[Difference]:
    """Yield the values at which two configs differ, with their dotted names.

    An object of another type, such as another backbone, is one difference, and so are lists of
    numbers or strings, and lists of other lengths.

    Args:
        before: A config, or a part of one.
        after: The same part of the other config.
        key: Dotted name of the part. Defaults to '': the whole config.
    """
    if _are_aligned(before, after):
        inner: tuple[dict, dict] = (dict(enumerate(before)), dict(enumerate(after)))
    elif isinstance(before, dict) and isinstance(after, dict) and before.get('type') == after.get('type'):
        inner = (before, after)
    else:
        if _plain(before) != _plain(after):
            yield Difference(key, before, after)
        return
    for name in dict.fromkeys([*inner[0], *inner[1]]):
        if name not in _NOT_COMPARED:
            old, new = (part.get(name, ABSENT) for part in inner)
            yield from differences(old, new, f'{key}.{name}' if key else str(name))


def _are_aligned(before: Any, after: Any) -> bool:
    """Whether two values are lists whose parts are compared one by one."""
    if not isinstance(before, list | tuple) or not isinstance(after, list | tuple) or len(before) != len(after):
        return False
    return any(isinstance(part, dict | list | tuple) for part in [*before, *after])


def _plain(value: Any) -> Any:
    """The value without what is not compared, and with lists for tuples."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if key not in _NOT_COMPARED}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
