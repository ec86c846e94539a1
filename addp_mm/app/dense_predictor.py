# Copyright (c) addp_mm contributors. Apache-2.0.
"""A detector or a segmentor that predicts for one image."""

from __future__ import annotations

import logging
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader, load_state_dict

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.state_dict import find_state_dict
from addp_mm.checks.checkpoint_fit import check_checkpoint_fit
from addp_mm.checks.weights import require_checkpoint
from addp_mm.config.config_file import load_config
from addp_mm.config.type_names import type_name
from addp_mm.errors import ConfigError
from addp_mm.registry import DATASETS, MODELS

# What the classes of a config raise about their arguments; a ConfigError is a ValueError.
_CONFIG_ERRORS = (ValueError, TypeError, KeyError, AssertionError, NotImplementedError)


@dataclass(frozen=True)
class DensePredictor:
    """A model with its test pipeline.

    Attributes:
        model: Detector of mmdet or segmentor of mmseg, in eval mode.
        pipeline: Transforms of the test pipeline after the loading.
        classes: Names of the classes.
        scope: Name of the package of the model.
    """

    model: Any
    pipeline: Compose
    classes: tuple[str, ...]
    scope: str

    @torch.no_grad()
    def __call__(self, pixels: np.ndarray) -> Any:
        """The prediction for an image, in its pixels.

        Args:
            pixels: RGB, uint8 (H, W, 3).

        Returns:
            ``DetDataSample`` or ``SegDataSample`` on the CPU.
        """
        size = pixels.shape[:2]
        sample = dict(
            img=np.ascontiguousarray(pixels[..., ::-1]), img_shape=size, ori_shape=size, img_id=0, img_path=''
        )
        with DefaultScope.overwrite_default_scope(self.scope):
            data = self.pipeline(sample)
            batch = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
            return self.model.test_step(batch)[0].cpu()


def load_predictor(config: str, checkpoint: str, kind: str, device: torch.device | str = 'cpu') -> DensePredictor:
    """Load a detector or a segmentor.

    Args:
        config: Path or name of its config.
        checkpoint: Path or address of its weights.
        kind: 'det' or 'seg'.
        device: Device of the model. Defaults to 'cpu'.

    Raises:
        ConfigError: The config has a mistake, or is not of this kind; the message names the option.
        CheckpointError: The checkpoint cannot be read, or does not fit; the message names the
            option.
    """
    checkpoint = require_checkpoint(checkpoint, f'--{kind}-checkpoint')
    try:
        cfg = load_config(config)
        scope, model = _build_model(cfg, kind)
        pipeline = _pipeline(cfg, scope)
    except _CONFIG_ERRORS as error:
        raise ConfigError(f'--{kind}-config {config}: {error}') from error
    try:
        content = CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent')
        check_checkpoint_fit(content, model, checkpoint, logging.getLogger(__name__), complete=True)
        load_state_dict(model, find_state_dict(content, checkpoint), logger='silent')
    except CheckpointError as error:
        raise CheckpointError(f'--{kind}-checkpoint: {error}') from error
    classes = _classes(cfg, content, scope)
    return DensePredictor(model.to(device).requires_grad_(False).eval(), pipeline, classes, scope)


def _build_model(cfg: Config, kind: str) -> tuple[str, Any]:
    if kind == 'det':
        from mmdet.models import BaseDetector as Wanted
    else:
        from mmseg.models import BaseSegmentor as Wanted
    if 'model' not in cfg or 'test_dataloader' not in cfg:
        raise ConfigError('it has no model or no test_dataloader')
    scope = cfg.get('default_scope') or {'det': 'mmdet', 'seg': 'mmseg'}[kind]
    with DefaultScope.overwrite_default_scope(scope):
        model = revert_sync_batchnorm(MODELS.build(deepcopy(cfg.model)))
    if not isinstance(model, Wanted):
        what = {'det': 'a detector', 'seg': 'a segmentor'}[kind]
        raise ConfigError(f'it builds {type(model).__name__}, which is not {what}: give a config of configs/{kind}')
    return scope, model


def _pipeline(cfg: Config, scope: str) -> Compose:
    """The test pipeline without the transforms that load the image and its annotations."""
    transforms = cfg.test_dataloader.dataset.pipeline
    with DefaultScope.overwrite_default_scope(scope):
        return Compose([deepcopy(one) for one in transforms if not type_name(one['type']).startswith('Load')])


def _classes(cfg: Config, checkpoint: dict, scope: str) -> tuple[str, ...]:
    """Names of the classes: those of the checkpoint, else those of the config's dataset."""
    meta = checkpoint.get('meta') or {}
    saved = meta.get('dataset_meta') or {}
    if 'classes' not in saved:
        with DefaultScope.overwrite_default_scope(scope):
            saved = DATASETS.build(dict(deepcopy(cfg.test_dataloader.dataset), lazy_init=True)).metainfo
    return tuple(saved['classes'])
