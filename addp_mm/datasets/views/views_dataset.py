# Copyright (c) addp_mm contributors. Apache-2.0.
"""The views of images in a fixed order, for the tokenizer that writes their ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from addp_mm.datasets.listed.broken_images import is_broken_image, is_gone
from addp_mm.datasets.listed.open_images import image_name
from addp_mm.datasets.views.views import Views

Problem = tuple[str, str]
# the reason of images that no longer exist, if their list is used nevertheless
GONE = 'it no longer exists'


class ViewsDataset(Dataset):
    """The views of one image after the other. A broken image does not raise an error.

    An item is a pair. For a readable image: its views (V, C, S, S), 0 to 255, and None. For a
    broken image: zeros, and the image's name with the reason.

    Args:
        images: All images; see :func:`~addp_mm.datasets.listed.open_images.open_images`.
        views: Settings of the views.
        channels: Channels that the images must have.
        load: Transform that adds ``img``, (H, W, C) or (H, W), 0 to 255; three channels are
            BGR.
        start: Number of the first image.
        stop: Number after the last image.
    """

    def __init__(
        self, images: Any, views: Views, channels: int, load: Callable[[dict], dict], start: int, stop: int
    ) -> None:
        self.images, self.views, self.channels = images, views, channels
        self.load, self.start, self.stop = load, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, offset: int) -> tuple[Tensor, Problem | None]:
        index = self.start + offset
        try:
            image = self.load(dict(self.images.get_data_info(index)))['img']
        except Exception as error:
            if not is_broken_image(error):
                raise
            gone = is_gone(error) and getattr(self.images, 'changed', None) == 'keep'
            return self._zeros(index, GONE if gone else str(error))
        image = image[..., None] if image.ndim == 2 else image
        if image.shape[2] != self.channels:
            return self._zeros(index, f'it has {image.shape[2]} channels, the tokenizer takes {self.channels}')
        image = image[..., ::-1] if self.channels == 3 else image
        return torch.from_numpy(self.views.make(image, index)), None

    def _zeros(self, index: int, reason: str) -> tuple[Tensor, Problem]:
        size = self.views.image_size
        return torch.zeros(self.views.count, self.channels, size, size), (image_name(self.images, index), reason)


def collate_views(items: Sequence[tuple[Tensor, Problem | None]]) -> tuple[Tensor, list[Problem | None]]:
    """Views of several images, float32 (B, V, C, S, S), in [0, 1], and their problems."""
    return torch.stack([views.float() for views, _ in items]).div_(255), [problem for _, problem in items]
