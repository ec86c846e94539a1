# Copyright (c) addp_mm contributors. Apache-2.0.
"""The generated images as numbered files of a folder."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from addp_mm.checkpoints.atomic_write import atomic_path, remove_partials
from addp_mm.errors import ConfigError

# options of Pillow, by the name of the format and of the files; all are lossless
FORMATS: dict[str, dict[str, Any]] = dict(png=dict(format='PNG'), webp=dict(format='WEBP', lossless=True))


class ImageFiles:
    """Numbered image files of a folder: ``000000.png`` and so on.

    A file is complete, or it does not exist under its name.

    Args:
        folder: The folder; it exists.
        kind: 'png' or 'webp' (lossless). Defaults to 'png'.
        num_threads: Threads that check files. Defaults to 4.

    Raises:
        ConfigError: This Pillow cannot write the format.
    """

    def __init__(self, folder: Path, kind: str = 'png', num_threads: int = 4) -> None:
        if kind == 'webp' and not features.check('webp'):
            raise ConfigError('--format webp: this Pillow was built without WebP. Install another one, or take png')
        self.folder, self.kind, self.num_threads = folder, kind, num_threads

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.folder / f'{index:06d}.{self.kind}'

    def write(self, index: int, image: np.ndarray) -> None:
        """Write an image, uint8 (H, W, 3), atomically.

        Raises:
            FileWriteError: It cannot be written.
        """
        with atomic_path(self.path(index)) as partial:
            Image.fromarray(image).save(partial, **FORMATS[self.kind])

    def read(self, index: int) -> np.ndarray:
        """Read an image, uint8 (H, W, 3)."""
        with Image.open(self.path(index)) as image:
            return np.asarray(image.convert('RGB'))

    def count(self) -> int:
        """Number of image files in the folder."""
        with os.scandir(self.folder) as entries:
            return sum(entry.name.endswith(f'.{self.kind}') and entry.name[0] != '.' for entry in entries)

    def missing(self, num_images: int) -> list[int]:
        """Numbers of the images that do not exist or are damaged, below ``num_images``.

        Damaged files are removed, and those that a killed run left under a temporary name. No other
        process may write into the folder.
        """
        remove_partials(self.folder)
        names = {path.name for path in self.folder.iterdir()}
        found = [index for index in range(num_images) if self.path(index).name in names]
        with ThreadPoolExecutor(self.num_threads) as pool:
            damaged = {index for index, good in zip(found, pool.map(self._is_complete, found), strict=True) if not good}
        for index in damaged:
            self.path(index).unlink()
        return sorted({*range(num_images)} - {*found} | damaged)

    def _is_complete(self, index: int) -> bool:
        """Whether a file is a complete image: of PNG by its checksums, of WebP by decoding it."""
        try:
            with Image.open(self.path(index), formats=[FORMATS[self.kind]['format']]) as image:
                if self.kind == 'png':
                    image.verify()
                else:
                    image.load()
        except (OSError, SyntaxError, EOFError):  # Pillow raises SyntaxError for a broken PNG
            return False
        return True
