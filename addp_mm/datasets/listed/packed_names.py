# Copyright (c) addp_mm contributors. Apache-2.0.
"""Tens of millions of names and numbers in one file, which all processes map into memory.

The file holds the bytes of all names, then a table of uint64 with one row a name (the end of the
name, then its numbers), then a JSON header, its length and a signature.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from addp_mm.checkpoints.atomic_write import atomic_path
from addp_mm.datasets.errors import DatasetError

_SIGNATURE = b'addp_mm names 2\n'
_END = 8 + len(_SIGNATURE)
_UINT64 = np.dtype('<u8')


def write_names(
    path: str | Path, records: Iterable[tuple], columns: Sequence[str] = (), about: Callable[[], Mapping] = dict
) -> None:
    """Write names, and integers that belong to them, to one file.

    Records are streamed: memory does not grow with their number. The file is written atomically.

    Args:
        path: The file; its folder is created if it is missing.
        records: Tuples of a name (bytes) and, for each column, one integer (0 to 2^64 - 1).
        columns: Names of the columns. Defaults to none.
        about: Called after the last record; returns a JSON object that is stored with the names.
            Defaults to an empty one.
    """
    path = Path(path)
    with atomic_path(path) as partial, open(partial, 'wb') as file, tempfile.TemporaryFile(dir=path.parent) as table:
        digest, count, end = hashlib.sha256(), 0, 0
        for name, *numbers in records:
            end += len(name)
            count += 1
            file.write(name)
            digest.update(name + b'\0')
            table.write(np.array([end, *numbers], _UINT64).tobytes())
        file.write(bytes(-end % _UINT64.itemsize))
        table.seek(0)
        shutil.copyfileobj(table, file, 1 << 20)
        header = dict(count=count, bytes=end, columns=[*columns], fingerprint=digest.hexdigest(), about={**about()})
        text = json.dumps(header).encode()
        file.write(text + len(text).to_bytes(8, 'little') + _SIGNATURE)


class PackedNames:
    """Names (bytes) by number, as :func:`write_names` wrote them.

    The names are memory-mapped. A pickle holds only the path, so workers share the file's pages.

    Args:
        path: The file.

    Attributes:
        about: What was stored with the names.
        fingerprint: SHA-256 of the names in their order, each followed by a zero byte.

    Raises:
        DatasetError: The file is not such a list, or is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            header, header_at = self._read_header()
            self.about, self.fingerprint = header['about'], header['fingerprint']
            self._columns = header['columns']
            shape = header['count'], 1 + len(self._columns)
            table_at = header['bytes'] + -header['bytes'] % _UINT64.itemsize
            if table_at + shape[0] * shape[1] * _UINT64.itemsize != header_at:
                raise ValueError('the sizes do not fit')
            self._names = self._map(np.uint8, 0, (header['bytes'],))
            self._table = self._map(_UINT64, table_at, shape)
        except (ValueError, KeyError, OSError) as error:
            raise DatasetError(
                f'{self.path} is not a list of images, or is damaged. Delete it; it is made again.'
            ) from error

    def _read_header(self) -> tuple[dict, int]:
        """The header and its offset in the file."""
        with open(self.path, 'rb') as file:
            end = file.seek(-_END, os.SEEK_END)
            last = file.read()
            if not last.endswith(_SIGNATURE):
                raise ValueError('no signature')
            start = file.seek(end - int.from_bytes(last[:8], 'little'))
            return json.loads(file.read()[:-_END]), start

    def _map(self, dtype: np.dtype | type, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        # An empty array cannot be mapped.
        return np.memmap(self.path, dtype, 'r', offset, shape) if shape[0] else np.empty(shape, dtype)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(f'{self.path} lists {len(self)} images, there is no image {index}')
        start = self._table[index - 1, 0] if index else 0
        return self._names[int(start) : int(self._table[index, 0])].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))

    def column(self, name: str) -> np.ndarray:
        """The numbers of a column, uint64, shape (N,), memory-mapped."""
        return self._table[:, 1 + self._columns.index(name)]

    def __reduce__(self) -> tuple:
        return type(self), (self.path,)


def names_fingerprint(names: Iterable[str]) -> str:
    """The fingerprint of a list of names, as :class:`PackedNames` has it."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode('utf-8', 'surrogateescape') + b'\0')
    return digest.hexdigest()
