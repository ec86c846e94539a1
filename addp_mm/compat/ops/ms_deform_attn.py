# Copyright (c) addp_mm contributors. Apache-2.0.
"""Multi-scale deformable attention (Zhu et al., https://arxiv.org/abs/2010.04159)."""

from typing import NamedTuple

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .weighted_rows import gradient_of_rows, gradient_of_weights, weighted_sums, zero_padded_corners

_OUTSIDE = (-1.0, 2.0)  # fractions of a level that are outside of it, whatever its size


@mmcv_op
def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Weighted sum of values that are sampled at a few positions of every level.

    Args:
        value: (B, K, M, D) values of M heads at the K pixels of all levels.
        value_spatial_shapes: (L, 2) int64 height and width of each level.
        value_level_start_index: (L,) int64 index of the first pixel of each level.
        sampling_locations: (B, Q, M, L, P, 2) x and y as fractions of the level, in [0, 1].
        attention_weights: (B, Q, M, L, P).
        im2col_step: mmcv's blocking of the batch; not used.

    Returns:
        (B, Q, M * D), in the dtype of ``value``.
    """
    if value.numel() == 0 or sampling_locations.numel() == 0:
        return value.new_zeros(value.size(0), sampling_locations.size(1), value.size(2) * value.size(3))
    inputs = _Inputs.of(value, sampling_locations, attention_weights)
    index, weight = _samples(inputs, value_spatial_shapes, value_level_start_index)
    attended = weighted_sums(inputs.value.flatten(0, 2), index, weight)
    return attended.view(*sampling_locations.shape[:2], -1).to(value.dtype)


@mmcv_op
def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Add the gradients of :func:`ms_deform_attn_forward` to the three ``grad_`` tensors."""
    if value.numel() == 0 or sampling_locations.numel() == 0:
        return
    levels = value_spatial_shapes, value_level_start_index
    inputs = _Inputs.of(value, sampling_locations, attention_weights)
    leaves = [tensor.detach().requires_grad_() for tensor in (inputs.locations, inputs.weights)]
    with torch.enable_grad():
        index, weight = _samples(inputs._replace(locations=leaves[0], weights=leaves[1]), *levels)
    rows = inputs.value.flatten(0, 2)
    grad = grad_output.to(rows.dtype).reshape(-1, rows.size(1))
    by_weight = gradient_of_weights(grad, rows, index)
    grads = torch.autograd.grad(weight, leaves, by_weight)
    grad_value += gradient_of_rows(grad, index, weight.detach(), len(rows)).view_as(value)
    grad_sampling_loc += grads[0]
    grad_attn_weight += grads[1]


class _Inputs(NamedTuple):
    """The tensors in the dtype of the computation."""

    value: Tensor
    locations: Tensor
    weights: Tensor

    @classmethod
    def of(cls, *tensors: Tensor) -> '_Inputs':
        dtype = compute_dtype(*tensors)
        return cls(*(tensor.to(dtype) for tensor in tensors))


def _samples(inputs: _Inputs, shapes: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """What each head of each query reads: (B * Q * M, L * P * 4) rows of values, and weights."""
    batch, pixels, heads, _ = inputs.value.shape
    # mmcv reads zeros at NaN and Inf
    at = inputs.locations.nan_to_num(nan=_OUTSIDE[0]).clamp(*_OUTSIDE)
    height, width = shapes.to(at.device).int()[:, :, None].unbind(1)
    index, corner = zero_padded_corners(at[..., 1] * height - 0.5, at[..., 0] * width - 0.5, height, width)
    image = torch.arange(batch, device=at.device).view(-1, 1, 1, 1, 1, 1) * pixels
    head = torch.arange(heads, device=at.device).view(-1, 1, 1, 1)
    index = (index + starts.to(at.device).view(-1, 1, 1) + image) * heads + head
    weight = corner * inputs.weights[..., None]
    return index.int().flatten(3).flatten(0, 2), weight.flatten(3).flatten(0, 2)
