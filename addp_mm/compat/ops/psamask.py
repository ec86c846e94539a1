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
    rows, row_valid = _shift(h_feature, h_feature, half_h_mask, h_mask, output)
    columns, column_valid = _shift(w_feature, w_feature, half_w_mask, w_mask, output)
    spread = _pick(input.view(num_, h_mask, w_mask, h_feature, w_feature), rows, columns)
    valid = row_valid[:, None, :, None] & column_valid[None, :, None, :]
    target = output.view(num_, h_feature, w_feature, h_feature, w_feature)
    if psa_type != _COLLECT:
        target = target.permute(0, 3, 4, 1, 2)
    target.copy_(torch.where(valid, spread, target))


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
    # the positions of the map are shifted in the other direction
    rows, row_valid = _shift(h_mask, h_feature, -half_h_mask, h_feature, grad_input, backward=True)
    columns, column_valid = _shift(w_mask, w_feature, -half_w_mask, w_feature, grad_input, backward=True)
    grad = grad_output.reshape(num_, h_feature, w_feature, h_feature, w_feature)
    if psa_type != _COLLECT:
        grad = grad.permute(0, 3, 4, 1, 2)
    valid = row_valid[:, None, :, None] & column_valid[None, :, None, :]
    target = grad_input.view(num_, h_mask, w_mask, h_feature, w_feature)
    target.copy_(torch.where(valid, _pick(grad, rows, columns), target))


def _shift(
    length: int, pixels: int, half: int, limit: int, like: Tensor, backward: bool = False
) -> tuple[Tensor, Tensor]:
    """For each pixel, indices from one table into the other, and whether the entry exists.

    The mask of the pixel ``p`` has the position ``t`` at ``t - p + half``; its entry ``m`` is the
    position ``m + p - half``.

    Returns:
        (length, pixels) index and validity.
    """
    entry = torch.arange(length, device=like.device)[:, None]
    pixel = torch.arange(pixels, device=like.device)[None]
    index = entry + (pixel if backward else -pixel) + half
    return index.clamp(0, limit - 1), (index >= 0) & (index < limit)


def _pick(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read (N, A, B, H, W) at rows (C, H) and columns (D, W): (N, C, D, H, W)."""
    height, width = rows.size(1), columns.size(1)
    y = torch.arange(height, device=table.device)[:, None]
    x = torch.arange(width, device=table.device)
    return table[:, rows[:, None, :, None], columns[None, :, None, :], y, x]
