# Copyright (c) addp_mm contributors. Apache-2.0.
"""One ``.npz`` file with all images, as evaluation suites read it."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from addp_mm.checkpoints.atomic_write import atomic_path

IMAGES, LABELS = 'arr_0', 'arr_1'  # names of ADM's evaluation suite


def write_npz(path: Path, images: Iterable[np.ndarray], num_images: int, labels: Sequence[int] | None = None) -> None:
    """Write images atomically, one after the other, into an uncompressed ``.npz`` file.

    Equal images give equal bytes.

    Args:
        path: The file.
        images: uint8 (H, W, 3), of one size; ``arr_0`` is (N, H, W, 3).
        num_images: Number of images N, at least 1.
        labels: Class of each image, for ``arr_1``, int64 (N,). Defaults to None: no ``arr_1``.

    Raises:
        ValueError: There are more or fewer images, or their sizes differ.
    """
    images = iter(images)
    first = next(images)
    shape, count = first.shape, 0
    with atomic_path(path) as partial, zipfile.ZipFile(partial, 'w') as archive:
        with _open_array(archive, IMAGES, (num_images, *shape), first.dtype) as file:
            for count, image in enumerate(itertools.chain([first], images), start=1):
                if image.shape != shape or count > num_images:
                    raise ValueError(f'image {count - 1} of {num_images} is {image.shape}, the first one {shape}')
                file.write(np.ascontiguousarray(image).tobytes())
        if count < num_images:
            raise ValueError(f'{count} of {num_images} images')
        if labels is not None:
            array = np.asarray(labels, np.int64)
            with _open_array(archive, LABELS, array.shape, array.dtype) as file:
                file.write(array.tobytes())


def _open_array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype) -> IO[bytes]:
    """Open an array of an archive for its bytes, after its header."""
    # ZipInfo has a constant date
    file = archive.open(zipfile.ZipInfo(f'{name}.npy'), 'w', force_zip64=True)
    header = dict(descr=np.lib.format.dtype_to_descr(dtype), fortran_order=False, shape=shape)
    np.lib.format.write_array_header_1_0(file, header)
    return file
