# Copyright (c) addp_mm contributors. Apache-2.0.
"""Batches as tensors and plain data, which a file can hold without a class in it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.structures import BaseDataElement
from torch import Tensor

from addp_mm.errors import UserError

_CLASS = 'class of the mm packages'
# data samples, boxes and masks; others are named, and not built from a file
_PACKAGES = ('mmengine.structures', 'mmpretrain.structures', 'mmdet.structures', 'mmseg.structures')
_PLAIN = (str, int, float, bool, type(None), np.ndarray, np.number)


class PlainDataError(UserError, ValueError):
    """Stored data name a class that is not built from a file."""


def to_plain(value: Any) -> Any:
    """Tensors on the CPU in dicts, lists and tuples; other objects by their text.

    Data samples, boxes and masks of the mm packages become dicts, from which :func:`from_plain`
    builds them again.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, BaseDataElement):
        fields = {key: to_plain(part) for key, part in value.items()}
        return {_CLASS: _path(value), 'metainfo': to_plain(dict(value.metainfo_items())), 'fields': fields}
    if isinstance(value, Mapping):
        return {key if isinstance(key, (str, int)) else str(key): to_plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [to_plain(part) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    if _path(value).startswith('mmdet.structures'):
        return {_CLASS: _path(value), **_of_mmdet(value)}
    return str(value)


def from_plain(value: Any) -> Any:
    """The value that :func:`to_plain` was given.

    Raises:
        PlainDataError: A class is none of the mm packages' data samples, boxes and masks.
    """
    if isinstance(value, dict) and _CLASS in value:
        return _build(_find(value[_CLASS]), value)
    if isinstance(value, dict):
        return {key: from_plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(from_plain(part) for part in value)
    return value


def _path(value: Any) -> str:
    return f'{type(value).__module__}.{type(value).__qualname__}'


def _of_mmdet(value: Any) -> dict:
    """Boxes have a tensor; masks are bitmaps or polygons of an image's height and width."""
    if isinstance(getattr(value, 'tensor', None), Tensor):
        return dict(tensor=to_plain(value.tensor))
    if hasattr(value, 'masks'):
        return dict(masks=to_plain(value.masks), height=int(value.height), width=int(value.width))
    return dict(text=str(value))


def _find(path: str) -> Any:
    module, _, name = str(path).rpartition('.')
    if not any(module == package or module.startswith(f'{package}.') for package in _PACKAGES):
        raise PlainDataError(f'the stored batch names the class {path}, which is no data sample of the mm packages')
    found = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, type):
        raise PlainDataError(f'the stored batch names the class {path}, which does not exist here')
    return found


def _build(kind: Any, stored: Mapping) -> Any:
    if issubclass(kind, BaseDataElement):
        element = kind(metainfo=from_plain(stored['metainfo']))
        for name, part in stored['fields'].items():
            # set_data does not check types: label maps of mmseg are stored under properties
            element.set_field(from_plain(part), name)
        return element
    if 'tensor' in stored:
        return kind(stored['tensor'], clone=False)
    if 'masks' in stored:
        return kind(stored['masks'], stored['height'], stored['width'])
    raise PlainDataError(f'{kind.__name__} was stored as text only: {stored.get("text")}')


def batch_size(batch: Any) -> int:
    """Number of samples of a batch of a data loader; 0 if it cannot be told."""
    samples = batch.get('data_samples') if isinstance(batch, Mapping) else None
    if isinstance(samples, Sequence) and samples:
        return len(samples)
    inputs = batch.get('inputs') if isinstance(batch, Mapping) else batch
    if isinstance(inputs, Tensor):
        return len(inputs) if inputs.dim() else 0
    if isinstance(inputs, Sequence) and inputs and isinstance(inputs[0], Tensor):
        # a list of images, or of views that are batches of images
        return len(inputs[0]) if inputs[0].dim() == 4 else len(inputs)
    return 0


def sample_of(batch: Any, index: int, size: int, copies: int = 1) -> Any:
    """The batch of one sample.

    Args:
        batch: A batch of a data loader.
        index: Number of the sample.
        size: :func:`batch_size` of the batch.
        copies: How often the sample is in it. Defaults to 1.
    """
    if isinstance(batch, Mapping):
        return {key: sample_of(part, index, size, copies) for key, part in batch.items()}
    if isinstance(batch, Tensor):
        return batch[[index] * copies] if batch.dim() and len(batch) == size else batch
    if isinstance(batch, (list, tuple)):
        views = bool(batch) and all(isinstance(part, Tensor) and part.dim() == 4 for part in batch)
        if views:
            return type(batch)(sample_of(part, index, size, copies) for part in batch)
        if len(batch) == size:
            return type(batch)([batch[index]] * copies)
    return batch
