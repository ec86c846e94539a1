# Copyright (c) addp_mm contributors. Apache-2.0.
"""Overlap of axis-aligned boxes."""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op


@mmcv_op
def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Fill ``ious`` with the overlaps of two sets of boxes.

    Args:
        bboxes1: (M, 4) boxes (x1, y1, x2, y2) in pixels.
        bboxes2: (N, 4) boxes; N = M if ``aligned``.
        ious: (M,) if ``aligned``, else (M, N); filled in place.
        mode: 0 divides by the union, 1 by the area of ``bboxes1``.
        aligned: Whether to compare row by row, not all with all.
        offset: 0 or 1; the width of a box is ``x2 - x1 + offset``.
    """
    if ious.numel() == 0:
        return
    dtype = compute_dtype(bboxes1, bboxes2)
    first, second = bboxes1.to(dtype), bboxes2.to(dtype)
    if not aligned:
        first = first[:, None]
    sides = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2]) + offset
    overlap = sides.clamp(min=0).prod(-1)
    base = (first[..., 2:] - first[..., :2] + offset).prod(-1)
    if mode == 0:
        base = base + (second[..., 2:] - second[..., :2] + offset).prod(-1) - overlap
    if ious.device.type != 'cpu':  # mmcv's CUDA kernel has a lower bound of the divisor, its CPU kernel has none
        base = base.clamp(min=offset)
    ious.copy_(overlap / base)
