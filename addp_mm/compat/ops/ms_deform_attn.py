# Copyright (c) addp_mm contributors. Apache-2.0.
"""Multi-scale deformable attention (Zhu et al., https://arxiv.org/abs/2010.04159)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import allow_atomics, compute_dtype, mmcv_op

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
    dtype = compute_dtype(value, sampling_locations, attention_weights)
    attended = _attend(
        value.to(dtype),
        value_spatial_shapes,
        value_level_start_index,
        sampling_locations.to(dtype),
        attention_weights.to(dtype),
    )
    return attended.to(value.dtype)


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
    dtype = compute_dtype(value, sampling_locations, attention_weights)
    leaves = [t.detach().to(dtype).requires_grad_() for t in (value, sampling_locations, attention_weights)]
    with torch.enable_grad(), allow_atomics():
        attended = _attend(leaves[0], value_spatial_shapes, value_level_start_index, *leaves[1:])
        grads = torch.autograd.grad(attended, leaves, grad_output.to(dtype))
    for total, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        total += grad


def _attend(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    batch, _, heads, dims = value.shape
    queries, points = locations.size(1), locations.size(4)
    # mmcv reads zeros at NaN and Inf; grid_sample does not
    locations = locations.nan_to_num(nan=_OUTSIDE[0]).clamp(*_OUTSIDE)
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (B * M, Q, L, P, 2)
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, len(shapes), points)
    attended = value.new_zeros(batch * heads, dims, queries)
    for level, ((height, width), start) in enumerate(zip(shapes.tolist(), starts.tolist(), strict=True)):
        image = value.narrow(1, start, height * width).flatten(2).transpose(1, 2)
        image = image.reshape(batch * heads, dims, height, width)
        sampled = F.grid_sample(image, grids[:, :, level], mode='bilinear', padding_mode='zeros', align_corners=False)
        attended = attended + (sampled * weights[:, :, :, level]).sum(-1)
    return attended.view(batch, heads * dims, queries).transpose(1, 2).contiguous()
