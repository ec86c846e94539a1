# Copyright (c) addp_mm contributors. Apache-2.0.
"""Sparse convolution and pooling (Graham et al., https://arxiv.org/abs/1711.10275).

For each tap of the filter, the rows of inputs that it joins with outputs are multiplied at once.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op


@mmcv_op
def indice_conv_forward(
    features: Tensor,
    filters: Tensor,
    indice_pairs: Tensor,
    indice_pair_num: Tensor,
    num_activate_out: int,
    inverse: int,
    subm: int,
) -> Tensor:
    """Convolve features of voxels.

    Args:
        features: (N, C).
        filters: (K1, ..., KD, C, O).
        indice_pairs: (K, 2, N) int32 rows of the inputs and outputs that each tap joins.
        indice_pair_num: (K,) int32, how many.
        num_activate_out: M outputs.
        inverse: 1: from outputs to inputs.
        subm: Not needed.

    Returns:
        (M, O).
    """
    return _convolved(features, filters, indice_pairs, indice_pair_num, num_activate_out, inverse).to(features.dtype)


@mmcv_op
def fused_indice_conv_forward(
    features: Tensor,
    filters: Tensor,
    bias: Tensor,
    indice_pairs: Tensor,
    indice_pair_num: Tensor,
    num_activate_out: int,
    inverse: int,
    subm: int,
) -> Tensor:
    """As :func:`indice_conv_forward`, plus a bias (O,)."""
    output = _convolved(features, filters, indice_pairs, indice_pair_num, num_activate_out, inverse)
    return (output + bias).to(features.dtype)


@mmcv_op
def indice_conv_backward(
    features: Tensor,
    filters: Tensor,
    out_bp: Tensor,
    indice_pairs: Tensor,
    indice_pair_num: Tensor,
    inverse: int,
    subm: int,
) -> list[Tensor]:
    """Gradients of :func:`indice_conv_forward` for the features and the filters."""
    dtype = compute_dtype(features, filters)
    rows, taps, flow = features.to(dtype), filters.to(dtype).flatten(0, -3), out_bp.to(dtype)
    by_rows, by_taps = torch.zeros_like(rows), torch.zeros_like(taps)
    for tap, source, target in _joined(indice_pairs, indice_pair_num, inverse):
        some = flow[target]
        by_taps[tap] = rows[source].T @ some
        by_rows.index_add_(0, source, some @ taps[tap].T)
    return [by_rows.to(features.dtype), by_taps.view_as(filters).to(filters.dtype)]


@mmcv_op
def indice_maxpool_forward(
    features: Tensor, indice_pairs: Tensor, indice_pair_num: Tensor, num_activate_out: int
) -> Tensor:
    """Take the maximum of the features that a window joins, and of 0, as mmcv does: -> (M, C)."""
    output = features.new_zeros(num_activate_out, features.size(1))
    values = features.masked_fill(features.isnan(), 0)  # NaN is no maximum
    for _, source, target in _joined(indice_pairs, indice_pair_num):
        output.scatter_reduce_(0, target[:, None].expand(-1, features.size(1)), values[source], 'amax')
    return output


@mmcv_op
def indice_maxpool_backward(
    features: Tensor, out_features: Tensor, out_bp: Tensor, indice_pairs: Tensor, indice_pair_num: Tensor
) -> Tensor:
    """Gradient of :func:`indice_maxpool_forward`, for all that equal the maximum: (N, C)."""
    flow = out_bp.to(compute_dtype(out_bp))
    total = torch.zeros_like(features, dtype=flow.dtype)
    for _, source, target in _joined(indice_pairs, indice_pair_num):
        total.index_add_(0, source, flow[target] * (features[source] == out_features[target]))
    return total.to(features.dtype)


def _convolved(features: Tensor, filters: Tensor, pairs: Tensor, number: Tensor, outputs: int, inverse: int) -> Tensor:
    dtype = compute_dtype(features, filters)
    rows, taps = features.to(dtype), filters.to(dtype).flatten(0, -3)
    output = rows.new_zeros(outputs, filters.size(-1))
    for tap, source, target in _joined(pairs, number, inverse):
        output.index_add_(0, target, rows[source] @ taps[tap])
    return output


def _joined(pairs: Tensor, number: Tensor, inverse: int = 0) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield each tap that joins anything, the rows that it reads, and those that it writes."""
    for tap, count in enumerate(number.tolist()):
        if count:
            source, target = pairs[tap, :, :count].long().flip(0) if inverse else pairs[tap, :, :count].long()
            yield tap, source, target
