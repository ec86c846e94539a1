# Copyright (c) addp_mm contributors. Apache-2.0.
"""The image files of a dataset by number, whether they are files or packed in a database."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from addp_mm.datasets.listed.listed_images import ListedImages
from addp_mm.datasets.readers.read_image import upright_size

Size = tuple[int, int]


class ImageSource(Protocol):
    """Image files by number."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Path or name of an image, for people."""

    def num_bytes(self, index: int) -> int:
        """Size of the file in bytes."""

    def read(self, index: int, num_bytes: int = -1) -> bytes:
        """Content of the file, or its first bytes."""

    def size(self, index: int) -> Size | None:
        """Height and width in pixels; None if they are unknown."""


class FileSource:
    """Image files.

    Args:
        paths: Their paths.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """The path."""
        return self.paths[index]

    def num_bytes(self, index: int) -> int:
        """Size of the file in bytes."""
        return os.stat(self.paths[index]).st_size

    def read(self, index: int, num_bytes: int = -1) -> bytes:
        """Content of the file, or its first bytes."""
        with open(self.paths[index], 'rb') as file:
            return file.read(num_bytes)

    def size(self, index: int) -> Size | None:
        """Height and width with the EXIF orientation applied; None if they are unknown."""
        return upright_size(Path(self.paths[index]))


class ListedSource:
    """Images of a :class:`ListedImages`: the files of a folder, or those in LMDB or tar files.

    Args:
        dataset: The dataset.
    """

    def __init__(self, dataset: ListedImages) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        """The name in the list of the dataset."""
        return self.dataset.name(index)

    def num_bytes(self, index: int) -> int:
        """Size of the file in bytes."""
        info = self.dataset.get_data_info(index)
        return len(info['img_bytes']) if 'img_bytes' in info else os.stat(info['img_path']).st_size

    def read(self, index: int, num_bytes: int = -1) -> bytes:
        """Content of the file, or its first bytes."""
        info = self.dataset.get_data_info(index)
        if 'img_bytes' in info:
            return info['img_bytes'] if num_bytes < 0 else info['img_bytes'][:num_bytes]
        return FileSource([info['img_path']]).read(0, num_bytes)

    def size(self, index: int) -> Size | None:
        """Height and width in pixels; None if they are unknown."""
        info = self.dataset.get_data_info(index)
        if 'img_bytes' not in info:
            return upright_size(Path(info['img_path']))
        try:
            width, height = Image.open(io.BytesIO(info['img_bytes'])).size
        except Exception:  # Pillow's plugins raise many types of errors for damaged files
            return None
        return height, width
