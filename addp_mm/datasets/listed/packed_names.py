# Copyright (c) addp_mm contributors. Apache-2.0.
"""Tens of millions of names and numbers in one file that all processes map into memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from addp_mm.checkpoints.atomic_write import atomic_path
from addp_mm.datasets.listed.image_folder import DatasetError

_MAGIC = b'addp_mm names 1\n'
_ALIGN = 16
_SPILL = 1 << 16


def write_names(
    path: str | Path, records: Iterable[tuple], columns: Sequence[str] = (), about: Mapping | None = None
) -> None:
    """Write names, and whole numbers that belong to them, to one file.

    Records are streamed: at no time are more than some ten thousand of them in memory. The file
    appears under its name when it is complete, so that other processes never see a part of it.

    Args:
        path: The file; its folder is made where it is lacking.
        records: Tuples of a name (bytes) and one integer (0 to 2^64 - 1) a column.
        columns: Names of the columns.
        about: Anything that JSON holds, to be kept with the names. It is read after the last
            record, so that the producer of the records may still fill it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{path.name}-', dir=path.parent) as folder:
        sections = ['names', 'ends', *columns]
        files = {name: open(Path(folder, name), 'w+b') for name in sections}  # noqa: SIM115
        try:
            count, digest = _spill(records, columns, files)
            with atomic_path(path) as whole, open(whole, 'wb') as out:
                _join(out, files, dict(count=count, fingerprint=digest, about=dict(about or {})))
        finally:
            for file in files.values():
                file.close()


def _spill(records: Iterable[tuple], columns: Sequence[str], files: Mapping) -> tuple[int, str]:
    """Write each section to a file of its own; return the number of names and their SHA-256."""
    numbers = {name: array('Q') for name in ('ends', *columns)}
    digest, count, end = hashlib.sha256(), 0, 0
    for name, *values in records:
        end += len(name)
        count += 1
        files['names'].write(name)
        digest.update(name + b'\0')
        numbers['ends'].append(end)
        for column, value in zip(columns, values, strict=True):
            numbers[column].append(value)
        if count % _SPILL == 0:
            _flush(numbers, files)
    _flush(numbers, files)
    return count, digest.hexdigest()


def _flush(numbers: Mapping[str, array], files: Mapping) -> None:
    for name, values in numbers.items():
        values.tofile(files[name])
        del values[:]


def _join(out, files: Mapping, header: dict) -> None:
    sizes = {name: file.seek(0, os.SEEK_END) for name, file in files.items()}
    text = json.dumps(dict(header, sizes=sizes)).encode()
    out.write(_MAGIC + len(text).to_bytes(8, 'little') + text)
    for file in files.values():
        out.write(bytes(-out.tell() % _ALIGN))
        file.seek(0)
        shutil.copyfileobj(file, out, 1 << 20)


class PackedNames(Sequence):
    """Names (bytes) by number, as :func:`write_names` wrote them. Nothing is read but what is asked for.

    Workers get the path, not the content, and share the pages of the file with all other processes.

    Args:
        path: The file.

    Attributes:
        about: What was kept with the names.
        fingerprint: SHA-256 of the names, each closed by a zero byte, in their order.

    Raises:
        DatasetError: This is no such file, or only a part of one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with open(self.path, 'rb') as file:
            start = file.read(len(_MAGIC) + 8)
            size = int.from_bytes(start[len(_MAGIC) :], 'little')
            try:
                header = json.loads(file.read(size)) if start.startswith(_MAGIC) else {}
            except ValueError:
                header = {}
            whole = file.seek(0, os.SEEK_END)
        self._places, end = {}, len(start) + size
        for name, length in header.get('sizes', {}).items():
            begin = end + -end % _ALIGN
            self._places[name], end = (begin, length), begin + length
        if 'count' not in header or whole != end:
            raise DatasetError(f'{self.path} is no list of images, or a damaged one. Delete it; it is made again.')
        self._count, self.fingerprint, self.about = header['count'], header['fingerprint'], header['about']
        self._maps: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < self._count:
            raise IndexError(f'{self.path} lists {self._count} images, there is no image {index}')
        ends = self.column('ends')
        begin = int(ends[index - 1]) if index else 0
        return self._map('names', np.uint8)[begin : int(ends[index])].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(self._count))

    def column(self, name: str) -> np.ndarray:
        """A column, uint64 (N), memory-mapped."""
        return self._map(name, np.uint64)

    def _map(self, name: str, dtype: type) -> np.ndarray:
        if name not in self._maps:
            begin, length = self._places[name]
            shape = (length // np.dtype(dtype).itemsize,)
            # an empty section cannot be mapped
            self._maps[name] = np.memmap(self.path, dtype, 'r', begin, shape) if length else np.empty(0, dtype)
        return self._maps[name]

    def __getstate__(self) -> dict:
        # a pickled memory map would be its whole content
        return {**self.__dict__, '_maps': {}}
