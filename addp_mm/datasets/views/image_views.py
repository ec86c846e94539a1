# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images of a folder or of another data set in a fixed order, and the views of one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch
from mmengine.registry import DATASETS, init_default_scope
from torch import Tensor
from torch.utils.data import Dataset

from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.listed.broken_images import is_broken_image, is_gone
from addp_mm.datasets.listed.image_files import ImageFiles
from addp_mm.datasets.listed.packed_names import names_fingerprint
from addp_mm.datasets.views.views import Views

Problem = tuple[str, str]
# what is wrong with images that are no longer there, where the list they stand in is kept all the
# same
GONE = 'gone since the images were listed'


def open_images(source: str) -> Dataset:
    """A data set whose ``get_data_info`` gives what a loading transform takes.

    Args:
        source: A folder, searched with all below it (its list is kept in ``~/.cache/addp_mm`` and
            made anew when the folder has changed); or a config, of which
            ``train_dataloader.dataset`` is built without its pipeline and must yield ``img_path``.

    Raises:
        DatasetError: There is no such source, or no image in it.
        ConfigError: The config has no such data set.
    """
    from addp_mm.config.config_file import ConfigError, load_config

    if not source.endswith(('.py', '.json')):
        return ImageFiles(source, changed='rescan')
    cfg = load_config(source)
    if 'train_dataloader' not in cfg:
        raise ConfigError(f'{source} has no train_dataloader')
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    dataset = DATASETS.build({**cfg.train_dataloader.dataset, 'pipeline': []})
    if not len(dataset):
        raise DatasetError(f'{source}: no images found')
    return dataset


def image_name(images: Dataset, index: int) -> str:
    """Name of an image in its list: relative to the data set's root where there is one."""
    if hasattr(images, 'name'):
        return images.name(index)
    path, root = str(images.get_data_info(index)['img_path']), getattr(images, 'data_root', None)
    return os.path.relpath(path, root) if root else path


def list_fingerprint(images: Dataset) -> str:
    """SHA-256 of all names in their order."""
    whole = getattr(images, 'split', None) is None and getattr(images, 'fingerprint', None)
    return whole or names_fingerprint(image_name(images, index) for index in range(len(images)))


class ImageViews(Dataset):
    """The views of one image after the other, for a data loader that neither shuffles nor stops at broken files.

    An item is a pair: the views, shape (V, C, S, S), 0 to 255, and None; or black ones, and the
    image's name and what is wrong with it.

    Args:
        images: All images, see :func:`open_images`.
        views: What to make of each.
        channels: Channels that the images must have.
        load: Transform that adds 'img', shape (H, W, C) or (H, W), 0 to 255; of three channels blue
            is the first.
        start: Number of the first image.
        stop: Number after the last.
    """

    def __init__(
        self, images: Dataset, views: Views, channels: int, load: Callable[[dict], dict], start: int, stop: int
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
            return self._black(index, GONE if gone else str(error))
        image = image[..., None] if image.ndim == 2 else image
        if image.shape[2] != self.channels:
            return self._black(index, f'it has {image.shape[2]} channels, the tokenizer takes {self.channels}')
        image = image[..., ::-1] if self.channels == 3 else image
        return torch.from_numpy(self.views.make(image, index)), None

    def _black(self, index: int, reason: str) -> tuple[Tensor, Problem]:
        size = self.views.image_size
        return torch.zeros(self.views.count, self.channels, size, size), (image_name(self.images, index), reason)


def gather(items: Sequence[tuple[Tensor, Problem | None]]) -> tuple[Tensor, list[Problem | None]]:
    """Views of several images, (B, V, C, S, S), float32 in [0, 1], and what is wrong with each of them."""
    return torch.stack([views.float() for views, _ in items]).div_(255), [problem for _, problem in items]
