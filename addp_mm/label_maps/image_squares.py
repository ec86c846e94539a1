# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images of a list, each resized to a square, for a classifier that writes label maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from addp_mm.datasets.listed.broken_images import is_broken_image
from addp_mm.datasets.readers.load_image import LoadImage


class ImageSquares(Dataset):
    """Whole images, resized to squares without cropping, so that a map covers the whole image.

    An item is uint8 (3, S, S), RGB, and the reason why the image could not be read, or None.

    Args:
        images: A dataset with ``get_data_info``.
        indices: Numbers of the images in the dataset.
        size: Side S in pixels.
    """

    def __init__(self, images: Any, indices: Sequence[int], size: int) -> None:
        self.images, self.indices, self.size = images, indices, size
        self._load = LoadImage()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> tuple[Tensor, str | None]:
        try:
            image = self._load(dict(self.images.get_data_info(self.indices[number])))['img']
        except Exception as error:
            if not is_broken_image(error):
                raise
            return torch.zeros(3, self.size, self.size, dtype=torch.uint8), str(error)
        side = (self.size, self.size)
        resized = Image.fromarray(image[..., ::-1]).resize(side, Image.Resampling.BICUBIC)
        return torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1), None


def collate(items: Sequence[tuple[Tensor, str | None]]) -> tuple[Tensor, list[str | None]]:
    """Images (B, 3, S, S) and their reasons."""
    return torch.stack([image for image, _ in items]), [reason for _, reason in items]
