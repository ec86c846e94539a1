# Copyright (c) addp_mm contributors. Apache-2.0.
"""Attention maps of PSANet (Zhao et al., Point-wise Spatial Attention Network, ECCV 2018)."""

import torch
from torch import Tensor

from .common import mmcv_op

_COLLECT = 0


@mmcv_op
def psamask_forward(
    input: Tensor,
    output: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Spread masks that are centred on each pixel over the whole map.

    Args:
        input: (N, h_mask * w_mask, H, W): for each pixel the weights of its surroundings.
        output: (N, H * W, H, W); filled in place at the positions inside a mask. 'collect': the
            weight of a position for a pixel is at (position, pixel); 'distribute': at (pixel,
            position).
        psa_type: 0 collect, 1 distribute.
        num_: N.
        h_feature: H.
        w_feature: W.
        h_mask: Rows of a mask.
        w_mask: Columns of a mask.
        half_h_mask: Rows of a mask above its centre.
        half_w_mask: Columns of a mask left of its centre.
    """
    target = output.view(num_, h_feature, w_feature, h_feature, w_feature)
    if psa_type != _COLLECT:
        target = target.permute(0, 3, 4, 1, 2)
    masks = input.reshape(num_, h_mask, w_mask, h_feature, w_feature)
    _copy(masks, target, (half_h_mask, half_w_mask), sign=-1)


@mmcv_op
def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Fill ``grad_input`` (N, h_mask * w_mask, H, W) with the gradient."""
    grad = grad_output.reshape(num_, h_feature, w_feature, h_feature, w_feature)
    if psa_type != _COLLECT:
        grad = grad.permute(0, 3, 4, 1, 2)
    masks = grad_input.view(num_, h_mask, w_mask, h_feature, w_feature)
    _copy(grad, masks, (-half_h_mask, -half_w_mask), sign=1)


def _copy(source: Tensor, target: Tensor, half: tuple[int, int], sign: int) -> None:
    """Copy (N, A, B, H, W) to (N, C, D, H, W) where an entry of the target exists in the source.

    The mask of the pixel ``p`` has the position ``t`` at ``t - p + half``; its entry ``m`` is the
    position ``m + p - half``.
    """
    (rows, row_valid), (columns, column_valid) = (
        _shift(target.size(axis + 1), target.size(axis + 3), half[axis], source.size(axis + 1), sign, target)
        for axis in (0, 1)
    )
    y = torch.arange(rows.size(1), device=source.device)[:, None]
    x = torch.arange(columns.size(1), device=source.device)
    picked = source[:, rows[:, None, :, None], columns[None, :, None, :], y, x]
    valid = row_valid[:, None, :, None] & column_valid[None, :, None, :]
    target.copy_(torch.where(valid, picked, target))


def _shift(length: int, pixels: int, half: int, limit: int, sign: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Index ``entry + sign * pixel + half`` (length, pixels), and whether it is in [0, limit)."""
    entry = torch.arange(length, device=like.device)[:, None]
    index = entry + sign * torch.arange(pixels, device=like.device)[None] + half
    return index.clamp(0, limit - 1), (index >= 0) & (index < limit)
