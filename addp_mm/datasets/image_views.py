# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images of a folder or of another data set in a fixed order, and the views of one after the other."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmengine.registry import DATASETS, init_default_scope
from torch import Tensor
from torch.utils.data import Dataset

from addp_mm.datasets.fingerprints import names_fingerprint
from addp_mm.datasets.image_folder import IMAGE_EXTENSIONS, DatasetError, check_folder_exists, list_files
from addp_mm.datasets.views import Views

_EXTENSIONS = (*IMAGE_EXTENSIONS, '.tiff', '.webp')
Problem = tuple[str, str]


class NamedImages:
    """Names of images in a fixed order, and for each what a loading transform needs.

    Args:
        source: A folder, searched with all below it; or a config, of which ``train_dataloader.dataset`` is built
            without its pipeline and must yield ``img_path``.

    Raises:
        DatasetError: There is no such source, or no image in it.
    """

    def __init__(self, source: str) -> None:
        self.dataset, self.folder, self.names = None, Path(source), []
        if source.endswith(('.py', '.json')):
            self.dataset = _build_dataset(source)
        else:
            check_folder_exists(self.folder)
            self.names = list_files(self.folder, _EXTENSIONS)
        if not len(self):
            raise DatasetError(f'{source}: no images found')

    def __len__(self) -> int:
        return len(self.names if self.dataset is None else self.dataset)

    def name(self, index: int) -> str:
        """Path relative to the folder or the data set's root."""
        if self.dataset is None:
            return self.names[index]
        path, root = str(self.dataset[index]['img_path']), getattr(self.dataset, 'data_root', None)
        return os.path.relpath(path, root) if root else path

    def results(self, index: int) -> dict:
        """What a loading transform takes."""
        if self.dataset is None:
            return dict(img_path=str(self.folder / self.names[index]))
        return dict(self.dataset[index])

    def fingerprint(self) -> str:
        """SHA-256 of all names in their order."""
        return names_fingerprint(self.name(index) for index in range(len(self)))


def _build_dataset(source: str):
    from addp_mm.engine.config_file import ConfigError, load_config

    cfg = load_config(source)
    if 'train_dataloader' not in cfg:
        raise ConfigError(f'{source} has no train_dataloader')
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    return DATASETS.build({**cfg.train_dataloader.dataset, 'pipeline': []})


class ImageViews(Dataset):
    """The views of one image after the other, for a data loader that neither shuffles nor stops at broken files.

    An item is a pair: the views, shape (V, C, S, S), 0 to 255, and None; or black ones, and the image's name and what
    is wrong with it.

    Args:
        images: All images.
        views: What to make of each.
        channels: Channels that the images must have.
        load: Transform that adds 'img', shape (H, W, C) or (H, W), 0 to 255.
        start: Number of the first image.
        stop: Number after the last.
    """

    def __init__(self, images: NamedImages, views: Views, channels: int, load: Callable[[dict], dict], start: int,
                 stop: int) -> None:
        self.images, self.views, self.channels = images, views, channels
        self.load, self.start, self.stop = load, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, offset: int) -> tuple[Tensor, Problem | None]:
        index = self.start + offset
        try:
            image = self.load(self.images.results(index))['img']
            image = image[..., None] if image.ndim == 2 else image
            if image.shape[2] != self.channels:
                raise ValueError(f'it has {image.shape[2]} channels, the tokenizer takes {self.channels}')
            if self.channels == 3:
                image = image[..., ::-1]  # loaders put blue first, and tokenizers take RGB
            return torch.from_numpy(self.views.make(image, index)), None
        except (OSError, ValueError) as error:
            size = self.views.image_size
            return torch.zeros(self.views.count, self.channels, size, size), (self.images.name(index), str(error))


def gather(items: Sequence[tuple[Tensor, Problem | None]]) -> tuple[Tensor, list[Problem | None]]:
    """Views of several images, (B, V, C, S, S), float32 in [0, 1], and what is wrong with each of them."""
    return torch.stack([views.float() for views, _ in items]).div_(255), [problem for _, problem in items]
