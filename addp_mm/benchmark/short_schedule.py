# Copyright (c) addp_mm contributors. Apache-2.0.
"""End a training after some iterations, and name its last checkpoint."""

from __future__ import annotations

from mmengine.config import Config

from addp_mm.errors import ConfigError


def short_schedule(cfg: Config, max_iters: int) -> list[str]:
    """Options that end a training after some iterations.

    A training by epochs gets one epoch over as many images as it needs.

    Raises:
        ConfigError: Its data set is wrapped by others, so that it cannot be shortened.
    """
    interval = f'default_hooks.logger.interval={max(1, min(50, max_iters // 10))}'
    if not _by_epoch(cfg):
        return [f'train_cfg.max_iters={max_iters}', interval]
    key, dataset = 'train_dataloader.dataset', cfg.train_dataloader.dataset
    while isinstance(dataset.get('dataset'), dict):
        key, dataset = f'{key}.dataset', dataset.dataset
    if 'datasets' in dataset:
        raise ConfigError(f'--max-iters: {key} joins several data sets; shorten the training by --cfg-options')
    images = max_iters * cfg.train_dataloader.batch_size
    return ['train_cfg.max_epochs=1', f'{key}.indices={images}', interval]


def last_checkpoint(cfg: Config, max_iters: int | None = None) -> str:
    """Name of the last checkpoint of a training."""
    if _by_epoch(cfg):
        return f'epoch_{1 if max_iters else cfg.train_cfg.max_epochs}.pth'
    return f'iter_{max_iters or cfg.train_cfg.max_iters}.pth'


def _by_epoch(cfg: Config) -> bool:
    return 'max_epochs' in cfg.train_cfg
