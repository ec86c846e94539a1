# Copyright (c) addp_mm contributors. Apache-2.0.
"""Sets of images to compare: folders of image files, and .npz files with one array of images."""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from PIL import Image

from addp_mm.config.output_folder import RECORDS
from addp_mm.datasets.readers.read_image import read_image
from addp_mm.datasets.readers.stored_image import StoredImage
from addp_mm.errors import UserError, first_few

_JPEG = ('.jpg', '.jpeg')
_EXTENSIONS = (*_JPEG, '.png', '.webp', '.bmp', '.ppm', '.pgm', '.tif', '.tiff')
ARRAY = 'arr_0'
_THREADS, _READ_AHEAD = 4, 64


class ImageSet(ABC):
    """Images in a fixed order, as RGB of 8 bits.

    Args:
        path: Where the images are.
        img_size: Side in pixels to which images are resized, in memory: the shorter side is resized
            (bicubic, antialiased), then the centre is cropped. None: the images keep their size.

    Attributes:
        notes: What was changed in the images read so far, with the number of images.
        sizes: Heights and widths of the images read so far, with the number of images.
    """

    def __init__(self, path: str | os.PathLike, img_size: int | None) -> None:
        self.path, self.img_size = Path(path), img_size
        self.notes: Counter[str] = Counter()
        self.sizes: Counter[tuple[int, int]] = Counter()

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Name and state of each file with images."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yield images start to stop - 1, uint8 (H, W, 3), at their stored size."""

    def fingerprint(self) -> str:
        """SHA-256 of the names, sizes and times of the files, and of ``img_size``."""
        digest = hashlib.sha256(f'{self.path.resolve()} {self.img_size}'.encode())
        for name, state in self.files():
            digest.update(f'{name} {state.st_size} {state.st_mtime_ns}\n'.encode('utf-8', 'surrogateescape'))
        return digest.hexdigest()

    def first_size(self) -> tuple[int, ...]:
        """Height and width of the first image, to be asked for before the images are read."""
        size = self._resized(next(iter(self.read(0, 1)))).shape[:2]
        self.notes.clear()
        return size

    def batches(self, start: int, stop: int, batch_size: int) -> Iterator[np.ndarray]:
        """Yield batches, uint8 (B, H, W, 3), of consecutive images of one size."""
        images = (self._resized(image) for image in self.read(start, stop))
        while read := list(islice(images, batch_size)):
            for _, group in groupby(read, key=lambda image: image.shape):
                batch = np.stack(list(group))
                self.sizes[batch.shape[1:3]] += len(batch)
                yield batch

    def warn(self) -> None:
        """Log what was changed in the images read so far, and different sizes."""
        lines = [f'{count} image(s) {what}' for what, count in sorted(self.notes.items())]
        if len(self.sizes) > 1:
            found = [f'{height}x{width} ({count})' for (height, width), count in self.sizes.most_common()]
            lines.append(f'images of {len(self.sizes)} sizes, {first_few(found)}: give img_size to bring them to one')
        for line in lines:
            print_log(f'{self.path}: {line}', logger='current', level=logging.WARNING)

    def _resized(self, image: np.ndarray) -> np.ndarray:
        size = self.img_size
        if size is None or image.shape[:2] == (size, size):
            return image
        height, width = image.shape[:2]
        factor = size / min(height, width)
        shape = (max(size, round(width * factor)), max(size, round(height * factor)))
        resized = np.asarray(Image.fromarray(image).resize(shape, Image.Resampling.BICUBIC))
        top, left = (resized.shape[0] - size) // 2, (resized.shape[1] - size) // 2
        return resized[top : top + size, left : left + size]


class FolderImages(ImageSet):
    """The images in a folder and its subfolders, sorted by path; files of other types are ignored.

    Raises:
        UserError: There are no images, or figures among them; in :meth:`read`, one cannot be read.
    """

    def __init__(self, path: str | os.PathLike, img_size: int | None = None) -> None:
        super().__init__(path, img_size)
        record = next((name for name in RECORDS if (self.path / name).is_file()), None)
        if record and (self.path / 'images').is_dir():
            raise UserError(
                f'{path} is an output folder ({record}), which also holds figures, such as a grid of the images: give '
                f'{self.path / "images"}'
            )
        self.paths = sorted(file for file in self.path.rglob('*') if file.suffix.lower() in _EXTENSIONS)
        if not self.paths:
            raise UserError(f'{path} has no images (files that end in {", ".join(_EXTENSIONS)})')
        if img_size is None and any(file.suffix.lower() in _JPEG for file in self.paths):
            print_log(
                f'{path} has JPEG files. If they were resized and saved as JPEG, the compression changes the distance '
                'by points: save as PNG, or resize the original images here (img_size).',
                logger='current',
                level=logging.WARNING,
            )

    def __len__(self) -> int:
        return len(self.paths)

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Path below the folder, and state of each image file."""
        return ((str(path.relative_to(self.path)), path.stat()) for path in self.paths)

    def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yield images start to stop - 1, uint8 (H, W, 3)."""
        with ThreadPoolExecutor(_THREADS) as pool:
            for begin in range(start, stop, _READ_AHEAD):
                for pixels, changes in pool.map(_read, self.paths[begin : min(begin + _READ_AHEAD, stop)]):
                    self.notes.update(changes)
                    yield pixels


def _read(path: Path) -> tuple[np.ndarray, list[str]]:
    """Pixels of a file, and what was changed in them."""
    try:
        stored = read_image(path, all_pages=False)
        return stored.rgb(), list(_changes(stored))
    except ValueError as error:
        raise UserError(f'{path}: cannot be read as an image ({error}). Replace or remove it.') from error


def _changes(stored: StoredImage) -> Iterator[str]:
    if stored.values.dtype.itemsize > 1:
        yield 'of 16 bits were scaled to 8'
    if stored.alpha:
        yield 'with transparency were blended onto white'
    if stored.colour == 1:
        yield 'in grey were repeated to three channels'


class ArrayImages(ImageSet):
    """The images in the array ``arr_0``, uint8 (N, H, W, 3), of a .npz file.

    Images are read from the file when they are needed: 50,000 images of 256 px need 10 GB.

    Raises:
        UserError: The file has no such array.
    """

    def __init__(self, path: str | os.PathLike, img_size: int | None = None) -> None:
        super().__init__(path, img_size)
        self.shape: tuple[int, ...]
        self._next: int  # the image at which the open file is
        self._rewind()

    def __len__(self) -> int:
        return self.shape[0]

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Name and state of the file."""
        yield self.path.name, self.path.stat()

    def read(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yield images start to stop - 1, uint8 (H, W, 3)."""
        size = int(np.prod(self.shape[1:]))
        # a compressed array can only be read forward, so the file stays open
        if start < self._next:
            self._rewind()
        self._read((start - self._next) * size, skip=True)
        self._next = start
        while self._next < stop:
            content = self._read(size)
            self._next += 1
            yield np.frombuffer(content, np.uint8).reshape(self.shape[1:])

    def _read(self, size: int, skip: bool = False) -> bytes:
        try:
            if skip:
                self._file.seek(size, os.SEEK_CUR)
                return b''
            content = self._file.read(size)
        except Exception as error:  # zipfile raises many types of errors for a damaged file
            raise UserError(f'{self.path}: {ARRAY} is damaged ({error}). Write the file again.') from error
        if len(content) < size:
            raise UserError(f'{self.path}: {ARRAY} is truncated. Write the file again.')
        return content

    def _rewind(self) -> None:
        """Open the array at its first pixel, and read its shape."""
        try:
            self._file = zipfile.ZipFile(self.path).open(f'{ARRAY}.npy')  # noqa: SIM115  # it stays open
            version = np.lib.format.read_magic(self._file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(self._file)
        except Exception as error:  # zipfile and numpy raise many types of errors for a damaged file
            raise UserError(f'{self.path} is not a .npz file with the images {ARRAY} ({error}).') from error
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or fortran or min(shape) < 1:
            order = ' in Fortran order' if fortran else ''
            raise UserError(
                f'{self.path}: {ARRAY} is {dtype} {shape}{order}, and must be uint8 (N, H, W, 3): images in RGB of 8 '
                'bits, in C order.'
            )
        self.shape, self._next = shape, 0


def open_images(path: str | os.PathLike, img_size: int | None = None) -> ImageSet:
    """The images of a folder or of a .npz file.

    Args:
        path: Folder, or .npz file with ``arr_0``.
        img_size: See :class:`ImageSet`. Defaults to None.

    Raises:
        UserError: There are no images.
    """
    if os.path.isdir(path):
        return FolderImages(path, img_size)
    if not os.path.exists(path):
        raise UserError(f'{path} does not exist. Give a folder of images, or a .npz file with the images {ARRAY}.')
    return ArrayImages(path, img_size)
