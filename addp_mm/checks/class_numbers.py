# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check that the parts of a model and its data preprocessor have the same number of classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mmengine.config import Config

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


def check_class_numbers(cfg: Config) -> None:
    """Check values of a config that must be the same number of classes.

    All parts get the same labels: a part with fewer classes fails at a label that it lacks, and
    one-hot labels with another number of classes do not fit the predictions.

    Args:
        cfg: The whole config.

    Raises:
        ConfigError: Two values differ. The message has both keys and values.
    """
    find = dict(mmpretrain=_classifier, mmseg=_segmentor, mmdet=_detector).get(cfg.get('default_scope') or '')
    for group in find(cfg) if find else ():
        for other in group[1:]:
            if other.number != group[0].number:
                raise ConfigError(
                    f'config: {group[0].key}={group[0].number}, but {other.key}={other.number}: they must be the same '
                    'number of classes. Set both to that of your data'
                )
    _check_weights(cfg)


def _classifier(cfg: Config) -> Iterator[list[_Number]]:
    """The head, its loss, and the labels that the data preprocessor and the pipeline make."""
    head = _numbers(cfg, 'model.head')
    preprocessor = 'model.data_preprocessor' if _at(cfg, 'model.data_preprocessor') else 'data_preprocessor'
    settings = _at(cfg, preprocessor)
    mixes = settings.get('to_onehot') or settings.get('batch_augments') or _at(cfg, 'model.train_cfg')
    if head:
        yield head + _numbers(cfg, 'model.head.loss') + (_numbers(cfg, preprocessor) if mixes else [])
        for step in _keys(cfg, 'train_dataloader.dataset.pipeline'):
            yield head + _numbers(cfg, step)


def _segmentor(cfg: Config) -> Iterator[list[_Number]]:
    """All heads: they learn from the same label maps."""
    yield [one for key in _segmentation_heads(cfg) for one in _numbers(cfg, key)]


def _segmentation_heads(cfg: Config) -> list[str]:
    """Keys of the heads that learn from label maps."""
    keys = [key for name in ('decode_head', 'auxiliary_head', 'panoptic_head') for key in _keys(cfg, f'model.{name}')]
    return [key for key in keys if type_name(_at(cfg, key).get('type')) not in OWN_CLASSES]


def _detector(cfg: Config) -> Iterator[list[_Number]]:
    """Heads of boxes and of masks, and the parts of a panoptic model."""
    for parent in ('model.roi_head', 'model'):
        heads = [key for name in ('bbox_head', 'mask_head', 'mask_iou_head') for key in _keys(cfg, f'{parent}.{name}')]
        yield [one for key in heads if not _at(cfg, key).get('class_agnostic') for one in _numbers(cfg, key)]
    for name in _PANOPTIC:
        parts = ('panoptic_head', 'semantic_head', 'panoptic_fusion_head')
        yield [one for part in parts for one in _numbers(cfg, f'model.{part}', name)]


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


def _at(node: Any, key: str) -> Any:
    """The part of a config at a dotted key; {} if there is none."""
    for name in key.split('.'):
        if isinstance(node, list | tuple):
            node = node[int(name)] if name.isdigit() else None
        else:
            node = node.get(name) if isinstance(node, Mapping | Config) else None
    return node or {}
