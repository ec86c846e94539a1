# Copyright (c) addp_mm contributors. Apache-2.0.
"""Which voxels a sparse convolution joins (Graham et al., https://arxiv.org/abs/1711.10275)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .common import mmcv_op


class _Filter(NamedTuple):
    """A filter over D axes."""

    kernel: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    transposed: bool


def get_indice_pairs_forward(
    indices: Tensor,
    batch_size: int,
    out_shape: Sequence[int],
    spatial_shape: Sequence[int],
    ksize: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    out_padding: Sequence[int],
    subm: int,
    transpose: int,
) -> list[Tensor]:
    """Find the outputs of a sparse convolution, and what each tap of the filter joins.

    Args:
        indices: (N, 1 + D) int32: index in the batch, and position on D axes, of each input.
        batch_size: Not needed.
        out_shape: Size of the D axes of the output.
        spatial_shape: Size of the D axes of the input. Not needed.
        ksize: Taps on each axis; K in all.
        stride: Positions of the input from one output to the next; of the output if transposed.
        padding: Positions outside that are read, on each side.
        dilation: Positions from one tap to the next.
        out_padding: Not needed: it is in ``out_shape``.
        subm: 1: outputs are where inputs are, at the same rows. Then ``stride`` is 1 and
            ``padding`` half of ``ksize``, also with a dilation.
        transpose: 1: a transposed convolution.

    Returns:
        (M, 1 + D) int32 positions of the outputs, sorted, or ``indices``; (K, 2, N) int32 rows of
        the inputs and of the outputs that each tap joins, filled up with -1; and (K,) int32 their
        number.
    """
    if subm:
        used = _Filter(ksize, [1] * len(ksize), [size // 2 for size in ksize], dilation, transposed=False)
    else:
        used = _Filter(ksize, stride, padding, dilation, bool(transpose))
    key, exists = _targets(indices, out_shape, used)
    if subm:
        known, order = _flat(indices.long().unbind(1), out_shape).sort(stable=True)
        found = torch.searchsorted(known, key).clamp(max=len(known) - 1)
        exists &= known[found] == key
        outputs, row = indices, order[found]
    else:
        known = key[exists].unique()
        outputs, row = _positions(known, out_shape).to(indices.dtype), torch.searchsorted(known, key)
    number = exists.sum(1)
    tap, point = exists.nonzero(as_tuple=True)
    rank = torch.arange(len(tap), device=tap.device) - (number.cumsum(0) - number)[tap]
    pairs = torch.full((len(key), 2, len(indices)), -1, dtype=torch.int32, device=indices.device)
    pairs[tap, 0, rank], pairs[tap, 1, rank] = point.int(), row[exists].int()
    return [outputs, pairs, number.int()]


def get_indice_pairs_backward(indices: Tensor, grid: Tensor, *settings) -> list[Tensor]:
    """As :func:`get_indice_pairs_forward`, with memory for a dense output, which is not needed.

    It is not a backward pass, despite its name in mmcv.
    """
    return get_indice_pairs_forward(indices, *settings)


for _dims in (2, 3, 4):
    mmcv_op(get_indice_pairs_forward, f'get_indice_pairs_{_dims}d_forward')
for _dims in (2, 3):
    mmcv_op(get_indice_pairs_backward, f'get_indice_pairs_{_dims}d_backward')


def _targets(indices: Tensor, shape: Sequence[int], used: _Filter) -> tuple[Tensor, Tensor]:
    """Flat output of each tap and input: (K, N) int64, and whether there is one: (K, N) bool."""
    taps = torch.cartesian_prod(*(torch.arange(size, device=indices.device) for size in used.kernel))
    batch, *position = indices.long().unbind(1)
    targets = [batch.expand(len(taps), -1)]
    exists = torch.ones_like(targets[0], dtype=torch.bool)
    axes = zip(position, taps.unbind(1), used.stride, used.padding, used.dilation, shape, strict=True)
    for at, tap, stride, padding, dilation, size in axes:
        if used.transposed:
            target = at * stride - padding + tap[:, None] * dilation
        else:
            moved = at + padding - tap[:, None] * dilation
            target = moved.div(stride, rounding_mode='floor')
            exists &= target * stride == moved
        exists &= (target >= 0) & (target < size)
        targets.append(target)
    return _flat(targets, shape), exists


def _flat(position: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """One int64 for index in the batch and positions on D axes: 1 + D tensors (...) -> (...)."""
    key = position[0]
    for at, size in zip(position[1:], shape, strict=True):
        key = key * size + at
    return key


def _positions(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo :func:`_flat`: (M,) -> (M, 1 + D)."""
    columns = []
    for size in reversed(shape):
        columns.append(key % size)
        key = key.div(size, rounding_mode='floor')
    return torch.stack([key, *reversed(columns)], 1)
