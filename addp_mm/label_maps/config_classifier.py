# Copyright (c) addp_mm contributors. Apache-2.0.
"""A classifier of a config, mmpretrain's ``ImageClassifier``, at every position."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from addp_mm.checkpoints.init_weights import init_weights
from addp_mm.config.config_file import ConfigError, load_config
from addp_mm.config.type_names import type_name
from addp_mm.label_maps.dense_classifier import DenseClassifier, from_positions, to_positions, tokens_to_map
from addp_mm.registry import MODELS

_POOLED = ('cls_token', 'avg_featmap')


class ConfigClassifier(DenseClassifier):
    """mmpretrain's ImageClassifier at every position of the last map of its backbone.

    Pooling is left out: neck and head see each position as an image of one pixel, and each token of
    a transformer in place of the class token or the mean. VOLO's head has a layer for tokens, which
    is used.

    Args:
        name: Name of the config.
        model: The classifier, in eval mode.
        image_size: Side of the images in the config, in pixels.
    """

    def __init__(self, name: str, model: Any, image_size: int) -> None:
        super().__init__(name)
        self.model = model
        self._image_size = image_size
        self._has_aux_head = hasattr(model.head, 'aux_fc')
        self._is_pooled, self._pooled_norm = _leave_out_pooling(model.backbone)

    @property
    def image_size(self) -> int:
        """Side of the images in the config, in pixels."""
        return self._image_size

    def to(self, *args, **kwargs) -> ConfigClassifier:
        """Move the classifier. mmengine's models keep the device of their data preprocessor."""
        self.model.to(*args, **kwargs)
        return super().to(*args, **kwargs)

    def position_logits(self, images: Tensor) -> Tensor:
        """Logits at each position."""
        inputs = self.model.data_preprocessor(dict(inputs=images.flip(1)), False)['inputs']  # mmcv's order is BGR
        features = self.model.backbone(inputs)
        if self._has_aux_head:
            return tokens_to_map(self.model.head.aux_fc(self.model.head.pre_logits(features)[:, 1:]))
        last = features[-1]
        if last.ndim == 3:  # VOLO: the class token is first
            last = tokens_to_map(last[:, 1:])
        positions = self._pooled_norm(to_positions(last))
        outs: Any = (positions if self._is_pooled else positions[..., None, None],)
        if self.model.with_neck:
            outs = self.model.neck(outs)
        return from_positions(self.model.head(outs), last)


def _leave_out_pooling(backbone: Any) -> tuple[bool, nn.Module]:
    """Make a backbone return its last map.

    Returns:
        Whether it returned one vector of each image, and the norm that follows the mean.
    """
    if getattr(backbone, 'gap_before_final_norm', False):  # mmpretrain's ConvNeXt
        backbone.gap_before_final_norm = False
        return True, nn.Identity()
    out_type = getattr(backbone, 'out_type', None)
    if out_type not in _POOLED:
        return False, nn.Identity()
    # VOLO's class attention is before the head, and only its tokens have the final norm
    backbone.out_type = 'raw' if hasattr(backbone, 'mix_token') else 'featmap'
    norms = (getattr(backbone, 'ln2', None), getattr(getattr(backbone, 'timm_model', None), 'fc_norm', None))
    norm = next((norm for norm in norms if norm is not None), None)  # of mmpretrain, of timm
    return True, norm if norm is not None and out_type == 'avg_featmap' else nn.Identity()


def load_config_classifier(config: str, checkpoint: str) -> ConfigClassifier:
    """Build the classifier of a config at every position; see :func:`load_image_classifier`."""
    return ConfigClassifier(config, *load_image_classifier(config, checkpoint))


def load_image_classifier(config: str, checkpoint: str) -> tuple[Any, int]:
    """Build the classifier of a config with the weights of a checkpoint.

    Args:
        config: A file or the name of a shipped config.
        checkpoint: Any address that ``addp_mm.Pretrained`` takes.

    Returns:
        mmpretrain's ``ImageClassifier`` in eval mode, and the side of its images, in pixels.

    Raises:
        ConfigError: The config has no ``ImageClassifier`` with a head.
        CheckpointError: The weights are not exactly those of the model.
    """
    cfg = load_config(config)
    importlib.import_module('mmpretrain.models')
    model_cfg = dict(cfg.get('model') or {})
    if not type_name(model_cfg.get('type')).endswith('ImageClassifier') or not model_cfg.get('head'):
        raise ConfigError(
            f'{config}: model.type is {model_cfg.get("type")}, but an ImageClassifier with a head is needed. '
            'Give the config of a classifier (configs/cls), or timm:MODEL'
        )
    for part in ('backbone', 'neck', 'head'):
        if isinstance(model_cfg.get(part), Mapping):
            model_cfg[part] = _without_weights(model_cfg[part])  # the checkpoint has all weights
    weights = dict(type='addp_mm.Pretrained', checkpoint=checkpoint, strict=True)
    model_cfg = dict(_without_weights(model_cfg), init_cfg=weights)
    if cfg.get('data_preprocessor') is not None:
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain'):
        model = MODELS.build(Config(dict(model=model_cfg)).model)
        init_weights(model)
    return model.requires_grad_(False).eval(), _test_size(cfg)


def _without_weights(cfg: Mapping) -> dict:
    """A section of a model's config that reads no weights."""
    return {key: value for key, value in cfg.items() if key not in ('init_cfg', 'pretrained')}


def class_names(config: str) -> list[str]:
    """Names of the classes in the metainfo of a config's training data; [] if it has none."""
    cfg = load_config(config)
    dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    classes = (dataset.get('metainfo') or {}).get('classes')
    return list(classes) if isinstance(classes, (list, tuple)) else []


def _test_size(cfg: Mapping) -> int:
    """Size of the test images of a config; else that of the backbone; else 224."""
    pipeline = ((cfg.get('test_dataloader') or {}).get('dataset') or {}).get('pipeline') or []
    sizes = [step.get('crop_size', step.get('scale')) for step in pipeline if isinstance(step, Mapping)]
    for size in [*reversed([size for size in sizes if size]), cfg['model']['backbone'].get('img_size')]:
        if size:
            return max(size) if isinstance(size, (list, tuple)) else size
    return 224
