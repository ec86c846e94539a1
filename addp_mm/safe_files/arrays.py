# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read numpy's files without pickles, and without memory for values that a file does not have.

The header of an array states its size. numpy makes room for it before it reads the values, so that
a file of 100 bytes can ask for terabytes.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Sequence
from typing import IO

import numpy as np

#: Bytes of all arrays that are read from one .npz file.
MOST_BYTES = 8 << 30


def read_npy(content: bytes) -> np.ndarray:
    """Read the bytes of an ``.npy`` file.

    Raises:
        ValueError: It is damaged, holds objects, or its header claims more values than it has.
    """
    file = io.BytesIO(content)
    _check_size(file, len(content))
    file.seek(0)
    return np.load(file, allow_pickle=False)


def read_npz(path: str | os.PathLike, fields: Sequence[str]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Read arrays of a ``.npz`` file.

    Args:
        path: The file.
        fields: Names of the arrays. Those that the file lacks are left out.

    Returns:
        Names of all arrays in the file, and the arrays by name.

    Raises:
        ValueError: The file is damaged, holds objects, is larger than :data:`MOST_BYTES`, or a
            header claims more values than there are.
        OSError: The path cannot be read.
        zipfile.BadZipFile: It is not a zip file.
    """
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix('.npy'): info for info in archive.infolist()}
        wanted = {field: members[field] for field in fields if field in members}
        total = sum(info.file_size for info in wanted.values())
        if total > MOST_BYTES:
            raise ValueError(f'its arrays have {total / 2**30:.1f} GiB, more than {MOST_BYTES >> 30} GiB')
        return list(members), {field: _read_member(archive, info) for field, info in wanted.items()}


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    # np.load looks a name up again, and could find another member than the one that was checked
    with archive.open(info) as file:
        _check_size(file, info.file_size)
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _check_size(file: IO[bytes], size: int) -> None:
    """Compare the size that a header states with the bytes after it."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    claimed, present = math.prod(shape) * dtype.itemsize, size - file.tell()
    if not dtype.hasobject and claimed > present:
        raise ValueError(f'its header states {claimed} bytes of {dtype} {shape}, but {present} follow')
