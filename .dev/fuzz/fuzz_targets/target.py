# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a fuzz target is, and what its function may use."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from addp_mm.errors import UserError


class Target(NamedTuple):
    """An entry point of the package that reads bytes of a stranger.

    Attributes:
        run: Reads the bytes. It returns, or raises a UserError or one of ``allowed``.
        seeds: Returns valid inputs, from which the fuzzer starts.
        allowed: The other errors that the entry point documents.
        words: Byte strings of the format, which the fuzzer inserts.
    """

    run: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    allowed: tuple[type[Exception], ...] = ()
    words: tuple[bytes, ...] = ()


def attempt(target: Target, data: bytes) -> str:
    """Run a target once.

    Returns:
        The name of the class of the error, or 'accepted'.

    Raises:
        Exception: A finding: an error that is neither a UserError nor documented.
    """
    try:
        target.run(data)
    except (UserError, *target.allowed) as error:
        return type(error).__name__
    return 'accepted'


@cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix='fuzz_')


def scratch(name: str, content: bytes | str | None = None) -> Path:
    """A path in a folder that is removed when the process ends.

    Args:
        name: Path below the folder; its own folder is created.
        content: Content of the file. Defaults to None: the file is not written.
    """
    path = Path(_folder().name) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


class Reader:
    """Makes numbers, choices and texts of bytes; after the last byte all of them are 0 or empty.

    Args:
        data: The bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """The next bytes."""
        part = self._data[self._at : self._at + count]
        self._at += count
        return part

    def number(self, below: int) -> int:
        """A number from 0 to ``below - 1``, of one or two bytes."""
        return int.from_bytes(self.take(1 if below <= 256 else 2), 'little') % below

    def choice(self, values):
        """One of the values."""
        return values[self.number(len(values))]

    def part(self) -> bytes:
        """Bytes of a length that stands before them, in two bytes."""
        return self.take(int.from_bytes(self.take(2), 'little'))

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self.take(len(self._data))


def part(content: bytes) -> bytes:
    """What :meth:`Reader.part` reads."""
    return len(content).to_bytes(2, 'little') + content
