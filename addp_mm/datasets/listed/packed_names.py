# Copyright (c) addp_mm contributors. Apache-2.0.
"""Tens of millions of names in one file, which all processes map into memory.

The file holds the bytes of all names, then the end of each name (uint64), then a JSON header, its
length and a signature.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from operator import le
from pathlib import Path

import numpy as np

from addp_mm.checkpoints.atomic_write import atomic_path
from addp_mm.datasets.errors import DatasetError

_SIGNATURE = b'addp_mm names 3\n'
_TAIL = 8 + len(_SIGNATURE)
_CHUNK = 4096  # names


def write_names(path: str | Path, names: Iterable[bytes], about: Mapping) -> None:
    """Write names to one file, atomically. They are streamed; each needs 8 bytes of memory.

    Args:
        path: The file; its folder is created if it is missing.
        names: The names.
        about: A JSON object that is stored with them.
    """
    digest, ends, end = hashlib.sha256(), array('Q'), 0
    with atomic_path(path) as partial, open(partial, 'wb') as file:
        for name in names:
            file.write(name)
            digest.update(name + b'\0')
            end += len(name)
            ends.append(end)
        file.write(bytes(-end % ends.itemsize))
        ends.tofile(file)
        header = dict(count=len(ends), bytes=end, fingerprint=digest.hexdigest(), about=dict(about))
        text = json.dumps(header).encode()
        file.write(text + len(text).to_bytes(8, 'little') + _SIGNATURE)


class PackedNames:
    """Names (bytes) by number, as :func:`write_names` wrote them.

    The names are memory-mapped. A pickle holds only the path, so workers share the file's pages.

    Args:
        path: The file.

    Attributes:
        about: The JSON object that is stored with the names.
        fingerprint: SHA-256 of the names in their order, each followed by a zero byte.

    Raises:
        DatasetError: The file is not such a list, or is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            header, header_at = self._read_header()
            self.about, self.fingerprint = dict(header['about']), str(header['fingerprint'])
            size, count = header['bytes'], header['count']
            ends_at = size + -size % 8
            if not (type(size) is int and type(count) is int) or ends_at + 8 * count != header_at or size < 0:
                raise ValueError('the sizes do not fit')
            self._names = self._map(np.uint8, 0, size)
            self._ends = self._map(np.uint64, ends_at, count)
            if int(self._ends[-1] if count else 0) != size:
                raise ValueError('the ends do not fit')
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, OSError) as error:
            raise self._damaged() from error

    def _damaged(self) -> DatasetError:
        return DatasetError(f'{self.path} is not a list of images, or is damaged. Delete it; it is written again.')

    def _read_header(self) -> tuple[dict, int]:
        """The header and its offset in the file."""
        with open(self.path, 'rb') as file:
            end = file.seek(-_TAIL, os.SEEK_END)
            last = file.read()
            if not last.endswith(_SIGNATURE):
                raise ValueError('no signature')
            start = file.seek(end - int.from_bytes(last[:8], 'little'))
            return json.loads(file.read()[:-_TAIL]), start

    def _map(self, dtype: type, offset: int, count: int) -> np.ndarray:
        # An empty array cannot be mapped.
        return np.memmap(self.path, dtype, 'r', offset, (count,)) if count else np.empty(0, dtype)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(f'{self.path} lists {len(self)} images, so that image {index} does not exist')
        start, end = int(self._ends[index - 1]) if index else 0, int(self._ends[index])
        if not start <= end <= len(self._names):
            raise self._damaged()
        return self._names[start:end].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        # One read of many names is ten times faster than a read of each.
        for first in range(0, len(self), _CHUNK):
            ends = self._ends[first : first + _CHUNK].tolist()
            start = int(self._ends[first - 1]) if first else 0
            if not all(map(le, [start, *ends], [*ends, len(self._names)])):
                raise self._damaged()
            content, begin = self._names[start : ends[-1]].tobytes(), 0
            for end in ends:
                yield content[begin : end - start]
                begin = end - start

    def __reduce__(self) -> tuple:
        return type(self), (self.path,)


def names_fingerprint(names: Iterable[str]) -> str:
    """The fingerprint of a list of names, as :class:`PackedNames` has it."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode('utf-8', 'surrogateescape') + b'\0')
    return digest.hexdigest()
