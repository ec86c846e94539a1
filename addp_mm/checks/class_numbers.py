# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check that the parts of a model and its data preprocessor have the same number of classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from logging import WARNING
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.logging import print_log

from addp_mm.config.nodes import node_at
from addp_mm.config.type_names import type_name
from addp_mm.errors import ConfigError

#: Heads whose classes are not those of the label maps: borders, and the classes of a text encoder.
OWN_CLASSES = ('STDCHead', 'SideAdapterCLIPHead')
_PANOPTIC = ('num_things_classes', 'num_stuff_classes')
# Heads whose loss has one weight more: that of "no object".
_MASK_QUERIES = ('MaskFormerHead', 'Mask2FormerHead')


class _Number(NamedTuple):
    """A number of classes and its dotted key."""

    key: str
    number: int


class _Group(NamedTuple):
    """Numbers that should be the same.

    Args:
        numbers: The numbers; all are compared with the first.
        fails: Whether a training or a prediction fails if a number is smaller, or larger.
    """

    numbers: list[_Number]
    fails: tuple[bool, bool]


_ALWAYS, _IF_FEWER, _NEVER = (True, True), (True, False), (False, False)


def check_class_numbers(cfg: Config) -> None:
    """Check values of a config that must be the same number of classes; warn if they should be.

    All parts get the same labels: one-hot labels with another number of classes do not fit the
    predictions. A part with more classes than its neighbours works, but is most often a mistake.

    Args:
        cfg: The whole config.

    Raises:
        ConfigError: Two values differ that must not. The message has both keys and values.
    """
    find = dict(mmpretrain=_classifier, mmseg=_segmentor, mmdet=_detector).get(cfg.get('default_scope') or '')
    for group in find(cfg) if find else ():
        for other in group.numbers[1:]:
            _compare(group.numbers[0], other, group.fails)
    _check_weights(cfg)


def _compare(first: _Number, other: _Number, fails: tuple[bool, bool]) -> None:
    if first.number == other.number:
        return
    words = f'config: {first.key}={first.number}, but {other.key}={other.number}: they'
    if fails[other.number > first.number]:
        raise ConfigError(f'{words} must be the same number of classes. Set both to that of your data')
    print_log(f'{words} are mostly the same number of classes, that of your data', 'current', WARNING)


def _classifier(cfg: Config) -> Iterator[_Group]:
    """The head, its loss, and the labels that the data preprocessor and the pipeline make."""
    head = _numbers(cfg, 'model.head')
    preprocessor = 'model.data_preprocessor' if _at(cfg, 'model.data_preprocessor') else 'data_preprocessor'
    settings = _at(cfg, preprocessor)
    settings = settings if isinstance(settings, Mapping) else {}
    mixes = settings.get('to_onehot') or settings.get('batch_augments') or _at(cfg, 'model.train_cfg')
    if head:
        labels = _numbers(cfg, preprocessor) if mixes else []
        yield _Group(head + _numbers(cfg, 'model.head.loss') + labels, _ALWAYS)
        for step in _keys(cfg, 'train_dataloader.dataset.pipeline'):
            yield _Group(head + _numbers(cfg, step), _ALWAYS)


def _segmentor(cfg: Config) -> Iterator[_Group]:
    """All heads: they learn from the same label maps."""
    yield _Group([one for key in _segmentation_heads(cfg) for one in _numbers(cfg, key)], _NEVER)


def _detector(cfg: Config) -> Iterator[_Group]:
    """Heads of boxes and of masks, and the parts of a panoptic model."""
    for parent in ('model.roi_head', 'model'):
        boxes = [one for key in _keys(cfg, f'{parent}.bbox_head') for one in _numbers(cfg, key)]
        yield _Group(boxes, _ALWAYS)
        masks = [key for name in ('mask_head', 'mask_iou_head') for key in _keys(cfg, f'{parent}.{name}')]
        masks = [key for key in masks if not _at(cfg, key).get('class_agnostic')]
        yield _Group(boxes[:1] + [one for key in masks if boxes for one in _numbers(cfg, key)], _IF_FEWER)
    for name in _PANOPTIC:
        parts = ('panoptic_head', 'semantic_head', 'panoptic_fusion_head')
        yield _Group([one for part in parts for one in _numbers(cfg, f'model.{part}', name)], _ALWAYS)


def _segmentation_heads(cfg: Config) -> list[str]:
    """Keys of the heads that learn from label maps."""
    keys = [key for name in ('decode_head', 'auxiliary_head', 'panoptic_head') for key in _keys(cfg, f'model.{name}')]
    return [key for key in keys if type_name(_at(cfg, key).get('type')) not in OWN_CLASSES]


def _check_weights(cfg: Config) -> None:
    """Check the number of weights of classes in the losses of heads that segment."""
    for head in _segmentation_heads(cfg):
        has_queries = type_name(_at(cfg, head).get('type')) in _MASK_QUERIES
        names = _PANOPTIC if cfg.get('default_scope') == 'mmdet' else ('num_classes',)
        numbers = [one for name in names for one in _numbers(cfg, head, name)]
        wanted = sum(one.number for one in numbers) + has_queries
        for loss in _keys(cfg, f'{head}.loss_cls' if has_queries else f'{head}.loss_decode'):
            weights = _at(cfg, loss).get('class_weight')
            if numbers and isinstance(weights, list | tuple) and len(weights) != wanted:
                words = ' and '.join(f'{one.key}={one.number}' for one in numbers)
                raise ConfigError(
                    f'config: {loss}.class_weight has {len(weights)} numbers, but {words}'
                    f'{" and one class for no object" if has_queries else ""}: give it {wanted} numbers'
                )


def _numbers(cfg: Config, key: str, name: str = 'num_classes') -> list[_Number]:
    """The number of classes of a part in a list; an empty list if it has none."""
    part = _at(cfg, key)
    number = part.get(name) if isinstance(part, Mapping) else None
    return [_Number(f'{key}.{name}', number)] if isinstance(number, int) and number > 0 else []


def _keys(cfg: Config, key: str) -> list[str]:
    """The key of a part; those of all its parts if it is a list; none if there is no such part."""
    part = _at(cfg, key)
    if isinstance(part, list | tuple):
        return [f'{key}.{i}' for i in range(len(part))]
    return [key] if part else []


def _at(cfg: Config, key: str) -> Any:
    """The part of a config at a dotted key; {} if there is none."""
    return node_at(cfg, key) or {}
