# Copyright (c) addp_mm contributors. Apache-2.0.
"""Compare two checkpoints of a training, value by value."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

# what two runs of one training need not share: paths, names, clocks, which files they have kept,
# and mmengine's version, to which it adds the commit of the working directory
_OTHER_EACH_RUN = (
    'meta.time',
    'meta.cfg',
    'meta.experiment_name',
    'meta.mmengine_version',
    'message_hub.runtime_info.cfg',
    'message_hub.runtime_info.eta',
    'message_hub.runtime_info.experiment_name',
    'message_hub.runtime_info.mmengine_version',
    'message_hub.runtime_info.last_ckpt',
    'message_hub.runtime_info.keep_ckpt_ids',
    'message_hub.resumed_keys.last_ckpt',
    'message_hub.resumed_keys.keep_ckpt_ids',
)
_CLOCKS = ('/time', '/data_time', '/memory')  # ends of the names of histories
_BEST = 'message_hub.runtime_info.best_ckpt'


def differences(first: Mapping, second: Mapping) -> list[str]:
    """Name each value in which two checkpoints of a training are not equal bit for bit.

    Weights, optimizer, moving averages, schedulers, loss scale, random state, the states of hooks,
    counts and the histories of the losses are compared. Of a best checkpoint only the name is
    compared, not its folder. Not compared: the config, times, memory, the version of mmengine, and
    the names of the files that were kept.

    Args:
        first: A checkpoint, as :func:`addp_mm.checkpoints.reading.load_checkpoint_file` reads it.
        second: The other one.

    Returns:
        One line for each difference, in the order of ``first``; empty if there is none.

    Example:
        >>> differences(dict(weights=torch.ones(2)), dict(weights=torch.zeros(2)))
        ['weights: 2 of 2 values differ, by up to 1']
    """
    one, two = dict(_leaves(first)), dict(_leaves(second))
    found = []
    for path, value in one.items():
        if path not in two:
            found.append(f'{path} is only in the first')
        elif not _same(value, two[path]):
            found.append(f'{path}: {_difference(value, two[path])}')
    return found + [f'{path} is only in the second' for path in two if path not in one]


def _leaves(value: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Path and value of everything in nested containers; empty containers are values."""
    if path in _OTHER_EACH_RUN or path.endswith(_CLOCKS):
        return
    if isinstance(value, HistoryBuffer):
        # counts become float64 when a history is loaded
        value = dict(zip(('values', 'counts'), (part.astype(np.float64) for part in value.data), strict=True))
    if isinstance(value, Mapping) and value:
        items: Any = value.items()
    elif isinstance(value, (list, tuple, deque)) and value:
        items = enumerate(value)
    else:
        yield path, PurePath(value).name if path.startswith(_BEST) and isinstance(value, str) else value
        return
    for key, part in items:
        yield from _leaves(part, f'{path}.{key}' if path else str(key))


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, (Tensor, np.ndarray)) or isinstance(second, (Tensor, np.ndarray)):
        one, two = torch.as_tensor(first), torch.as_tensor(second)
        return one.dtype == two.dtype and one.shape == two.shape and torch.equal(_bytes(one), _bytes(two))
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    return type(first) is type(second) and bool(first == second)


def _bytes(values: Tensor) -> Tensor:
    """The bytes of the values, so that NaN equals NaN, and -0 does not equal 0."""
    return values.detach().cpu().reshape(-1).contiguous().view(torch.uint8)


def _difference(first: Any, second: Any) -> str:
    both = [torch.as_tensor(value) for value in (first, second) if isinstance(value, (Tensor, np.ndarray))]
    if len(both) < 2:
        return f'{first!r:.60} and {second!r:.60}'
    one, two = both
    if one.dtype != two.dtype or one.shape != two.shape:
        return f'{list(one.shape)} {one.dtype} and {list(two.shape)} {two.dtype}'
    size = max(one.element_size(), 1)
    other = (_bytes(one) != _bytes(two)).reshape(-1, size).any(1)
    largest = (one.detach().double() - two.detach().double()).abs().max().item()
    return f'{int(other.sum())} of {one.numel()} values differ, by up to {largest:.3g}'
