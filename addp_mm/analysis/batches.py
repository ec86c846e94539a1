# Copyright (c) addp_mm contributors. Apache-2.0.
"""Models of configs with random weights, and synthetic batches of the size they are trained on."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor

from addp_mm.config.config_file import ConfigError
from addp_mm.config.nodes import nodes_below

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample

NUM_OBJECTS = 8  # an image of COCO has 7.3 objects on average
CROPS = ('RandomResizedCrop', 'CenterCrop', 'FixedSizeCrop', 'RandomCrop')
RESIZES = ('Resize', 'ResizeEdge')


@contextmanager
def scope_of(cfg: Config) -> Iterator[None]:
    """Import the package of a config and make it the default scope, as Runner does."""
    from mmengine.registry import DefaultScope

    import addp_mm.registry  # noqa: F401

    scope = cfg.get('default_scope') or 'mmengine'
    if scope in ('mmdet', 'mmpretrain', 'mmseg'):
        for part in ('models', 'datasets', 'engine'):
            importlib.import_module(f'{scope}.{part}')
    with DefaultScope.overwrite_default_scope(scope):
        yield


def build_model(cfg: Config, keep_sync_norms: bool = False) -> BaseModel:
    """Build the model of a config with random weights; no checkpoint is read.

    Each weight is a number: those that a model leaves undefined until ``init_weights()``, as DINO
    its level embeddings, are drawn here.

    Args:
        cfg: The config.
        keep_sync_norms: Whether synchronised batch norms stay, which cannot run on the CPU.
            Defaults to False: they become plain ones.

    Raises:
        ConfigError: The config has no model.
    """
    from mmengine.model.utils import revert_sync_batchnorm

    from addp_mm.registry import MODELS

    if cfg.get('model') is None:
        raise ConfigError('the config has no model')
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    with scope_of(cfg), _undefined_is_nan():
        built = MODELS.build(model)
    for weight in built.parameters():
        if not weight.isfinite().all():
            torch.nn.init.normal_(weight, std=0.02)
    return built if keep_sync_norms else revert_sync_batchnorm(built)


@contextmanager
def _undefined_is_nan() -> Iterator[None]:
    """Memory that a constructor leaves undefined holds NaN, not any number."""
    debug = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode('warn')  # fills new memory, unless that is switched off
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(debug)


def pad_to(cfg: Config, img_size: tuple[int, int]) -> None:
    """Let the data preprocessor of a segmentor pad to a size instead of that of the crops.

    Args:
        cfg: The whole config, changed in place.
        img_size: Height and width in pixels.
    """
    for owner in (cfg, cfg.model):
        preprocessor = owner.get('data_preprocessor') or {}
        if cfg.get('default_scope') == 'mmseg' and preprocessor.get('size'):
            preprocessor['size'] = img_size


def training_size(cfg: Config) -> tuple[int, int]:
    """Height and width in pixels of the images that a config trains on.

    It is the first of these that the config has: the last crop to a fixed size; the size to which
    the data preprocessor pads; the size to which the test pipeline resizes, which is the largest
    training size in the recipes of mmdet; the backbone's ``img_size``; the size of the images whose
    ids are stored.

    Raises:
        ConfigError: The config has none of them.
    """
    for step in reversed(list(_steps(cfg.get('train_dataloader') or cfg.get('test_dataloader') or {}))):
        if step['type'].rsplit('.', 1)[-1] in CROPS and step.get('crop_type', 'absolute') == 'absolute':
            return _height_width(step.get('crop_size', step.get('scale')))
    model = cfg.get('model') or {}
    padded = (cfg.get('data_preprocessor') or model.get('data_preprocessor') or {}).get('size')
    if padded is not None:
        return _height_width(padded)
    for step in _steps(cfg.get('test_dataloader') or {}):
        if step['type'].rsplit('.', 1)[-1] in RESIZES and step.get('scale'):
            # mmdet's scales are (long side, short side); an image of COCO is wider than high.
            short, long = sorted(_height_width(step['scale']))
            return short, long
    stored = (cfg.get('train_dataloader') or {}).get('dataset', {}).get('views', {})  # of TokenIds
    size = model.get('backbone', {}).get('img_size', stored.get('image_size'))
    if size is None:
        raise ConfigError('the config does not define the size of its images; add --img-size HEIGHT WIDTH')
    return _height_width(size)


def _height_width(side: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (side, side) if isinstance(side, int) else side
    return height, width


def _steps(node: Any) -> Iterator[dict]:
    """Every dict with a ``type`` in nested dicts and lists, the outer ones first."""
    yield from (part for part in dicts_of(node) if isinstance(part.get('type'), str))


def synthetic_batch(cfg: Config, batch_size: int, img_size: tuple[int, int]) -> dict:
    """Make a batch like those of the config's data loader: grey images with simple targets.

    A config that trains on stored ids gets ids. The targets are labels; boxes, with masks and a
    class map if the config needs them; label maps.

    Args:
        cfg: Config of default scope mmpretrain, mmdet or mmseg.
        batch_size: Number of images.
        img_size: Height and width in pixels.

    Raises:
        ConfigError: The default scope is another one.
    """
    image = torch.full((3, *img_size), 127, dtype=torch.uint8)
    scope = cfg.get('default_scope')
    if scope == 'mmdet':
        steps = list(_steps(cfg.get('train_dataloader') or {}))
        with_mask = any(step.get('with_mask', step['type'].endswith('LoadPanopticAnnotations')) for step in steps)
        samples = [_det_sample(img_size, with_mask, _background(cfg)) for _ in range(batch_size)]
        return dict(inputs=[image] * batch_size, data_samples=samples)
    if scope == 'mmseg':
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        classes = _num_classes(cfg)
        samples = []
        for _ in range(batch_size):
            sample = SegDataSample(metainfo=dict(img_shape=img_size, ori_shape=img_size, pad_shape=img_size))
            sample.gt_sem_seg = PixelData(data=_label_map(img_size) % classes)
            samples.append(sample)
        return dict(inputs=[image] * batch_size, data_samples=samples)
    if scope in ('mmpretrain', 'addp_mm', None):
        from mmpretrain.structures import DataSample

        samples = [DataSample().set_gt_label(0) for _ in range(batch_size)]
        if trains_on_ids(cfg):
            return dict(inputs=torch.zeros(batch_size, _num_tokens(cfg), dtype=torch.long), data_samples=samples)
        preprocessor = (cfg.get('data_preprocessor') or cfg.model.get('data_preprocessor') or {}).get('type', '')
        images = image.expand(batch_size, -1, -1, -1) if 'SelfSup' in preprocessor else [image] * batch_size
        return dict(inputs=images, data_samples=samples)
    raise ConfigError(f'default_scope {scope!r} is not supported; use mmpretrain, mmdet or mmseg')


def trains_on_ids(cfg: Config) -> bool:
    """Whether a config trains a token predictor on stored ids, without a tokenizer."""
    model = cfg.get('model') or {}
    return 'predictor' in model and model.get('tokenizer') is None


def _num_tokens(cfg: Config) -> int:
    """Number of ids of an image, for a config that trains on ids."""
    from addp_mm.models.predictors import MaskedTokenPredictor

    default = inspect.signature(MaskedTokenPredictor).parameters['num_tokens'].default
    return cfg.model.predictor.get('num_tokens', default)


def _num_classes(cfg: Config) -> int:
    """The smallest number of classes that a head has; 1 for a head without classes."""
    parts = [part for name, part in cfg.model.items() if name != 'backbone']
    numbers = [node.get('num_classes') for node in dicts_of(parts)]
    return min((number for number in numbers if isinstance(number, int) and number > 0), default=1)


def _label_map(img_size: tuple[int, int]) -> Tensor:
    """Label map (1, H, W) with one of the classes 0 to 3 in each quarter."""
    labels = torch.zeros(1, *img_size, dtype=torch.long)
    labels[:, img_size[0] // 2 :] += 1
    labels[:, :, img_size[1] // 2 :] += 2
    return labels


def _boxes(img_size: tuple[int, int]) -> Tensor:
    """(NUM_OBJECTS, 4) boxes x1, y1, x2, y2 with sides of 0.05 to 0.5 of the image, as in COCO."""
    height, width = img_size
    share = torch.linspace(0.05, 0.5, NUM_OBJECTS)
    x1, y1 = torch.linspace(0, 0.5, NUM_OBJECTS) * width, torch.linspace(0.5, 0, NUM_OBJECTS) * height
    return torch.stack([x1, y1, x1 + share * width, y1 + share * height], dim=1)


def _background(cfg: Config) -> int | None:
    """Class of the pixels without an object in the class map; None if no head needs such a map."""
    for node in dicts_of(cfg.model):
        if node.get('num_stuff_classes'):
            return node['num_things_classes']
    return 0 if any(node.get('semantic_head') for node in dicts_of(cfg.model)) else None


def dicts_of(node: Any) -> Iterator[dict]:
    """Every dict in nested dicts and lists, the outer ones first."""
    return (part for _, part in nodes_below(node) if isinstance(part, dict))


def _det_sample(img_size: tuple[int, int], with_mask: bool, background: int | None) -> DetDataSample:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    boxes = _boxes(img_size)
    masks = np.zeros((NUM_OBJECTS, *img_size), dtype=np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    sample = DetDataSample(
        metainfo=dict(
            img_shape=img_size,
            ori_shape=img_size,
            pad_shape=img_size,
            batch_input_shape=img_size,
            scale_factor=(1.0, 1.0),
            border=(0, img_size[0], 0, img_size[1]),  # of RandomCenterCropPad
            img_id=0,
            img_path='synthetic',
        )
    )
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(NUM_OBJECTS, dtype=torch.long))
    if with_mask:
        sample.gt_instances.masks = BitmapMasks(masks, *img_size)
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    if background is not None:
        class_map = np.where(masks.any(axis=0), 0, background)
        sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(class_map)[None])
    return sample


def losses_of(model: BaseModel, data: dict) -> dict:
    """Losses of a preprocessed batch. ADDP gets the same noise level and masks in every call.

    Args:
        model: A model of mmengine's interface.
        data: Arguments of its ``forward``.
    """
    from addp_mm.diffusion import NoiseDraw
    from addp_mm.models.selfsup import ADDP

    if isinstance(model, ADDP):
        generator = torch.Generator().manual_seed(0)
        return model.loss(**data, noise=NoiseDraw.sample(model.schedule, generator))
    return model(**data, mode='loss')


def precision_of(cfg: Config) -> str:
    """Precision of a config's optimizer wrapper: 'bfloat16', 'float16' or 'float32'."""
    wrapper = cfg.get('optim_wrapper') or {}
    return wrapper.get('dtype', 'float16') if 'Amp' in wrapper.get('type', '') else 'float32'
