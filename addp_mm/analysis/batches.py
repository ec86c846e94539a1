# Copyright (c) addp_mm contributors. Apache-2.0.
"""Models of configs without their weights, and batches of the size they train on."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from addp_mm.config.config_file import ConfigError

OBJECTS = 8  # COCO has 7.3 on an image
CROPS = ('RandomResizedCrop', 'CenterCrop', 'FixedSizeCrop', 'RandomCrop')
RESIZES = ('Resize', 'ResizeEdge')


@contextmanager
def scope_of(cfg) -> Iterator[None]:
    """What a Runner does before it builds: the config's package is imported and its scope is the default."""
    from mmengine.registry import DefaultScope

    import addp_mm.registry  # noqa: F401

    scope = cfg.get('default_scope') or 'mmengine'
    if scope in ('mmdet', 'mmpretrain', 'mmseg'):
        for part in ('models', 'datasets', 'engine'):
            importlib.import_module(f'{scope}.{part}')
    with DefaultScope.overwrite_default_scope(scope):
        yield


def build_model(cfg) -> nn.Module:
    """The model of a config with the weights that its constructor makes; no checkpoint is read.

    Within a :class:`~addp_mm.analysis.dry_run.DryRun` it takes no memory to speak of.

    Raises:
        ConfigError: If the config has no model.
    """
    from mmengine.model.utils import revert_sync_batchnorm

    from addp_mm.registry import MODELS

    if cfg.get('model') is None:
        raise ConfigError('the config has no model')
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    with scope_of(cfg):
        return revert_sync_batchnorm(MODELS.build(model))


def training_size(cfg) -> tuple[int, int]:
    """Height and width in pixels of the images that a config trains on.

    That is its last crop to a fixed size; else the size that its preprocessor pads to; else, where
    images are only resized, the size of testing, which is the largest of training in the recipes of
    mmdet.

    Raises:
        ConfigError: If the pipelines say nothing about it.
    """
    for step in reversed(list(_steps(cfg.get('train_dataloader') or cfg.get('test_dataloader') or {}))):
        if step['type'].rsplit('.', 1)[-1] in CROPS and step.get('crop_type', 'absolute') == 'absolute':
            return _height_width(step.get('crop_size', step.get('scale')), wide=False)
    model = cfg.get('model') or {}
    padded = (cfg.get('data_preprocessor') or model.get('data_preprocessor') or {}).get('size')
    if padded is not None:
        return _height_width(padded, wide=False)
    for step in _steps(cfg.get('test_dataloader') or {}):
        if step['type'].rsplit('.', 1)[-1] in RESIZES and step.get('scale'):
            return _height_width(step['scale'], wide=True)
    size = model.get('backbone', {}).get('img_size')
    if size is None:
        raise ConfigError('the pipelines of the config name no size of images; give --shape HEIGHT WIDTH')
    return _height_width(size, wide=False)


def _height_width(side, wide: bool) -> tuple[int, int]:
    """Two numbers; ``wide``: as of an image in landscape format, whatever their order."""
    height, width = (side, side) if isinstance(side, int) else side
    return (min(height, width), max(height, width)) if wide else (height, width)


def _steps(node) -> Iterator[dict]:
    if isinstance(node, dict):
        if isinstance(node.get('type'), str):
            yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for part in node:
            yield from _steps(part)


def synthetic_batch(cfg, batch: int, size: tuple[int, int]) -> dict:
    """A batch as the config's data loader gives it: grey images, with labels, boxes and masks, or label maps.

    Args:
        cfg: A config of default scope mmpretrain, mmdet or mmseg.
        batch: Number of images.
        size: Height and width in pixels.

    Raises:
        ConfigError: For any other scope.
    """
    image = torch.full((3, *size), 127, dtype=torch.uint8)
    scope = cfg.get('default_scope')
    if scope == 'mmdet':
        return dict(inputs=[image] * batch, data_samples=[_scene(size) for _ in range(batch)])
    if scope == 'mmseg':
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        samples = []
        for _ in range(batch):
            sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size))
            sample.gt_sem_seg = PixelData(data=_quarters(size))
            samples.append(sample)
        return dict(inputs=[image] * batch, data_samples=samples)
    if scope in ('mmpretrain', 'addp_mm', None):
        from mmpretrain.structures import DataSample

        samples = [DataSample().set_gt_label(0) for _ in range(batch)]
        preprocessor = (cfg.get('data_preprocessor') or cfg.model.get('data_preprocessor') or {}).get('type', '')
        images = image.expand(batch, -1, -1, -1) if 'SelfSup' in preprocessor else [image] * batch
        return dict(inputs=images, data_samples=samples)
    raise ConfigError(f'default_scope {scope!r}: batches are known for mmpretrain, mmdet and mmseg')


def _quarters(size: tuple[int, int]) -> Tensor:
    """A map of the classes 0 to 3."""
    labels = torch.zeros(1, *size, dtype=torch.long)
    labels[:, size[0] // 2 :] += 1
    labels[:, :, size[1] // 2 :] += 2
    return labels


def _boxes(size: tuple[int, int], count: int) -> Tensor:
    """(count, 4) boxes x1, y1, x2, y2 of about the sizes in COCO: a twentieth to a half of the image's sides."""
    height, width = size
    share = torch.linspace(0.05, 0.5, count)
    x1, y1 = torch.linspace(0, 0.5, count) * width, torch.linspace(0.5, 0, count) * height
    return torch.stack([x1, y1, x1 + share * width, y1 + share * height], dim=1)


def _scene(size: tuple[int, int]):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    boxes = _boxes(size, OBJECTS)
    masks = np.zeros((OBJECTS, *size), dtype=np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    sample = DetDataSample(
        metainfo=dict(
            img_shape=size,
            ori_shape=size,
            pad_shape=size,
            batch_input_shape=size,
            scale_factor=(1.0, 1.0),
            img_id=0,
            img_path='synthetic',
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=boxes, labels=torch.zeros(OBJECTS, dtype=torch.long), masks=BitmapMasks(masks, *size)
    )
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return sample


def _proposals(sample, count: int):
    """Half of the proposals lie on the objects, more than a sampler takes as positive; half lie beside them."""
    from mmengine.structures import InstanceData

    size = sample.metainfo['img_shape']
    boxes = _boxes(size, OBJECTS)
    on = boxes.repeat(-(-count // 2 // OBJECTS), 1)
    on = on + torch.arange(len(on))[:, None] % 7 / 50
    beside = on.flip(0)[:, [0, 1, 0, 1]] + torch.tensor([0.0, 0.0, 8.0, 8.0])
    boxes = torch.cat([on, beside])[:count]
    return InstanceData(
        bboxes=boxes, scores=torch.linspace(1, 0, len(boxes)), labels=torch.zeros(len(boxes), dtype=torch.long)
    )


def fix_proposals(model: nn.Module) -> nn.Module:
    """Let a two-stage detector see as many proposals, and as many positive ones, as its config allows at most.

    Numbers of an untrained RPN, or none at all, would leave the RoI heads with fewer. Changes the
    model's own methods; other models stay as they are. Returns the model.
    """
    if not (hasattr(model, 'rpn_head') and hasattr(model, 'roi_head')):
        return model
    rpn, train_cfg, test_cfg = model.rpn_head, model.train_cfg, model.test_cfg
    loss = rpn.loss

    def loss_and_predict(x, data_samples, proposal_cfg=None):
        count = (proposal_cfg or train_cfg.rpn_proposal).max_per_img
        return loss(x, data_samples), [_proposals(sample, count) for sample in data_samples]

    def predict(x, data_samples, rescale=False):
        rpn(x)
        return [_proposals(sample, test_cfg.rpn.max_per_img) for sample in data_samples]

    rpn.loss_and_predict, rpn.predict = loss_and_predict, predict
    heads = getattr(model.roi_head, 'bbox_head', None)
    for head in heads if isinstance(heads, nn.ModuleList) else []:
        # a stage that predicts no shift hands its proposals on
        head.refine_bboxes = lambda sampling_results, *_: [_as_proposals(result) for result in sampling_results]
    return model


def _as_proposals(result):
    from mmengine.structures import InstanceData

    boxes = torch.cat([result.pos_priors, result.neg_priors])
    return InstanceData(bboxes=boxes)


def forward_inputs(cfg, model: nn.Module, batch: dict, training: bool) -> dict:
    """The preprocessed batch, with which the model is called."""
    with scope_of(cfg):
        return model.data_preprocessor(batch, training=training)


def precision_of(cfg) -> str:
    """'bfloat16', 'float16' or 'float32': what a config's optimizer wrapper computes in."""
    wrapper = cfg.get('optim_wrapper') or {}
    return wrapper.get('dtype', 'float16') if 'Amp' in wrapper.get('type', '') else 'float32'
