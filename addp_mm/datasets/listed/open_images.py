# Copyright (c) addp_mm contributors. Apache-2.0.
"""Open the images of a folder or of any dataset in a fixed order."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS, init_default_scope

from addp_mm.config.config_file import ConfigError, load_config
from addp_mm.datasets.errors import DatasetError, check_folder_exists
from addp_mm.datasets.listed.image_files import ImageFiles
from addp_mm.datasets.listed.packed_names import names_fingerprint


def open_images(source: str) -> Any:
    """Open a dataset whose ``get_data_info`` returns the input of a loading transform.

    Args:
        source: A folder; all folders below it are searched too. Its list is stored in
            ``~/.cache/addp_mm`` and written again if the folder has changed. Or a config: its
            ``train_dataloader.dataset`` is built without a pipeline and must return ``img_path``.

    Raises:
        DatasetError: The folder does not exist or has no image.
        ConfigError: The config has no such dataset.
    """
    if not source.endswith(('.py', '.json')):
        check_folder_exists(Path(source), 'the folder of images')
        return ImageFiles(source, changed='rescan')
    cfg = load_config(source)
    if 'train_dataloader' not in cfg:
        raise ConfigError(f'{source} has no train_dataloader')
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    dataset = DATASETS.build({**cfg.train_dataloader.dataset, 'pipeline': []})
    if not len(dataset):
        raise DatasetError(f'{source}: no images found')
    return dataset


def image_name(images: Any, index: int) -> str:
    """Name of an image in its list, relative to the ``data_root`` of the dataset if it has one."""
    if hasattr(images, 'name'):
        return images.name(index)
    path, root = str(images.get_data_info(index)['img_path']), getattr(images, 'data_root', None)
    return os.path.relpath(path, root) if root else path


def list_fingerprint(images: Any) -> str:
    """SHA-256 of all names in their order."""
    whole = getattr(images, 'split', None) is None and getattr(images, 'fingerprint', None)
    return whole or names_fingerprint(image_name(images, index) for index in range(len(images)))
