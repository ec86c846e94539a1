# Copyright (c) addp_mm contributors. Apache-2.0.
"""Models of mmdet's and mmsegmentation's own configs, at a tiny size."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from torch import Tensor

from helpers.watched_operators import WatchedOperators

CLASSES = 3
CHANNELS = {64: 4, 128: 16, 256: 32, 512: 32, 1024: 64, 2048: 64}
STAGES = {256: 16, 512: 32, 1024: 64, 2048: 128}  # of a ResNet-50 with 4 base channels
WIDTH_KEYS = {
    'in_channels',
    'out_channels',
    'output_channels',
    'channels',
    'feat_channels',
    'conv_out_channels',
    'fc_out_channels',
    'fc_channels',
    'embed_dims',
    'feedforward_channels',
    'num_feats',
}
FIXED = {
    'num_classes': CLASSES,
    'num_things_classes': CLASSES,
    'num_queries': 20,
    'max_per_img': 20,
    'max_per_image': 20,
    'num_dn_queries': 6,
    'num_points': 64,
    'score_thr': 0.0,
    'subdivision_num_points': 32,
    'batch_augments': None,
    'pretrained': None,
    'size': (64, 64),
}
DEEP = (6, 9)  # layers of the transformers
WARM_UP = 1e-3  # of the learning rate, in the first iteration of the packages' schedules


def read(package: str, path: str, options: dict | None = None, narrow: bool = True) -> Config:
    """Read a config of a package, and reduce its model.

    Args:
        package: 'mmdet' or 'mmseg'.
        path: The config's path in the package.
        options: Options of the model that are set at the end, such as
            ``{'neck.num_deconv_filters': (16, 8, 4)}``. Defaults to None.
        narrow: Whether necks and heads have fewer channels, not the backbone alone. Defaults to
            True.
    """
    importlib.import_module(f'{package}.models')
    cfg = Config.fromfile(Path(importlib.import_module(package).__file__).parent / '.mim' / 'configs' / path)
    shrink(cfg.model, CHANNELS if narrow else {})
    cfg.merge_from_dict({f'model.{key}': value for key, value in (options or {}).items()})
    init_default_scope(package)
    return cfg


def shrink(node, channels: dict[int, int]) -> None:
    """Reduce a model config of any layout to a small size."""
    if isinstance(node, (list, tuple)):
        for item in node:
            shrink(item, channels)
    if not isinstance(node, dict):
        return
    kind = str(node.get('type')).split('.')[-1]
    if kind in ('ResNet', 'ResNetV1c'):
        node.update(base_channels=4, stem_channels=4)
    if kind in ('DeformableDETRHead', 'DINOHead'):
        node['embed_dims'] = channels.get(256, 256)
    if kind == 'SyncBN':
        node['type'] = 'BN'
    for key, value in list(node.items()):
        if key == 'init_cfg' and isinstance(value, dict) and value.get('type') == 'Pretrained':
            node[key] = None
        elif key in FIXED:
            node[key] = FIXED[key] if key != 'num_points' else min(value, FIXED[key])
        elif key == 'class_weight' and isinstance(value, list):
            node[key] = [1.0] * CLASSES + [0.1]
        elif key == 'num_layers' and value in DEEP:
            node[key] = 2
        elif key in WIDTH_KEYS:
            node[key] = _width(key, value, kind, channels)
        else:
            shrink(value, channels)


def _width(key, value, kind, channels):
    if isinstance(value, (list, tuple)):
        table = channels if set(value) == {256} else STAGES  # outputs of a neck, or of the backbone
        return [table.get(item, item) for item in value] if set(value) <= set(STAGES) else value
    if key == 'in_channels' and kind in ('FCNHead', 'PSAHead', 'CCHead', 'DNLHead', 'EMAHead'):
        return STAGES.get(value, value)
    return channels.get(value, value)


def build(cfg: Config) -> BaseModel:
    """Build a model. Weights that start with zeros become random, so that gradients pass them."""
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()  # level embeddings are not initialised
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.01)
    return model


def train_step(
    cfg: Config, model: BaseModel, batch: dict, before_backward: Callable[[Tensor], None] = lambda total: None
) -> Tensor:
    """Train one step with the config's optimizer, as the first of a warm-up; gradients stay.

    Args:
        cfg: Config of the model.
        model: The model.
        batch: Images and samples of a loader.
        before_backward: Called with the loss before it goes backward. Defaults to a function that
            does nothing.

    Returns:
        The loss.
    """
    settings = copy.deepcopy(cfg.optim_wrapper)
    settings.optimizer.lr *= WARM_UP
    optim_wrapper = build_optim_wrapper(model, settings)
    data = model.train().data_preprocessor(copy.deepcopy(batch), True)
    total = model.parse_losses(model(**data, mode='loss'))[0]
    before_backward(total)
    optim_wrapper.backward(total)
    optim_wrapper.step()
    return total


def check_step(
    cfg: Config,
    model: BaseModel,
    batch: dict,
    watched: WatchedOperators | None = None,
    nodes: frozenset = frozenset(),
    unused: tuple[str, ...] = (),
) -> None:
    """Train a step: finite gradients reach every parameter, and the inputs of the nodes.

    Args:
        cfg: Config of the model.
        model: The model.
        batch: Images and samples of a loader.
        watched: The operators. Defaults to None.
        nodes: Kinds of nodes of autograd. Defaults to none.
        unused: Parameters that the model does not use. Defaults to ().
    """
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    watch = (lambda total: watched.watch(total, nodes)) if watched else (lambda total: None)
    assert train_step(cfg, model, batch, watch).isfinite()
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert [name for name, weight in trained.items() if weight.grad is None] == list(unused)
    trained = {name: weight for name, weight in trained.items() if name not in unused}
    assert all(weight.grad.isfinite().all() and weight.isfinite().all() for weight in trained.values())
    assert any(not torch.equal(weight, before[name]) for name, weight in trained.items())
    if watched:
        assert watched.finite
        assert set(watched.gradients) == nodes
        assert all(all(inputs.values()) for inputs in watched.gradients.values())


def predict(model: BaseModel, batch: dict) -> list:
    """Return the predicted samples."""
    with torch.no_grad():
        return model.eval().test_step(copy.deepcopy(batch))


def segmentation_batch() -> dict:
    """Return two images (3, 64, 64) with a class for each pixel."""
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64)))
        sample.gt_sem_seg = PixelData(data=torch.randint(CLASSES, (1, 64, 64), generator=generator))
        samples.append(sample)
    images = [torch.randint(255, (3, 64, 64), generator=generator, dtype=torch.uint8) for _ in samples]
    return dict(inputs=images, data_samples=samples)
