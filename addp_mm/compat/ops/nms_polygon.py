# Copyright (c) addp_mm contributors. Apache-2.0.
"""Greedy non-maximum suppression of rotated boxes and of quadrilaterals."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .box_iou_polygon import Boxes, overlaps, quadrilaterals, rotated_boxes
from .common import compute_dtype, mmcv_op
from .nms import keep_by_blocks

_BLOCK = 64


@mmcv_op
def nms_rotated(
    dets: Tensor,
    scores: Tensor,
    order: Tensor,
    dets_sorted: Tensor,
    labels: Tensor,
    iou_threshold: float,
    multi_label: bool,
) -> Tensor:
    """Keep the boxes whose overlap with each box of higher score is less than ``iou_threshold``.

    As in mmcv, labels change nothing: boxes of all classes are compared. ``batched_nms`` moves each
    class to a region of its own first. mmcv's CUDA kernel also keeps boxes whose overlap equals the
    threshold; here they are suppressed on all devices, as by its CPU kernel.

    Args:
        dets: (N, 5) boxes (center x, center y, width, height, angle in radians, from x to y), with
            the label in a sixth column if ``multi_label``.
        scores: (N,).
        order: Not used: the order is that of ``scores``.
        dets_sorted: Not used, as ``order``.
        labels: Not used.
        iou_threshold: In [0, 1].
        multi_label: Not used.

    Returns:
        (K,) int64 indices of the kept boxes, best first.
    """
    return _nms(dets, scores, iou_threshold, rotated_boxes)


@mmcv_op
def nms_quadri(
    dets: Tensor, scores: Tensor, order: Tensor, dets_sorted: Tensor, iou_threshold: float, multi_label: bool
) -> Tensor:
    """Keep the convex quadrilaterals as :func:`nms_rotated` keeps boxes.

    Args:
        dets: (N, 8) corners (x1, y1, ..., x4, y4) in order, with the label in a ninth column if
            ``multi_label``.
        scores: (N,).
        order: Not used.
        dets_sorted: Not used.
        iou_threshold: In [0, 1].
        multi_label: Not used.

    Returns:
        (K,) int64 indices of the kept quadrilaterals, best first.
    """
    return _nms(dets, scores, iou_threshold, quadrilaterals)


def _nms(dets: Tensor, scores: Tensor, iou_threshold: float, read: Callable[[Tensor], Boxes]) -> Tensor:
    if dets.numel() == 0:
        return torch.empty(0, dtype=torch.long, device=dets.device)
    order = scores.sort(0, descending=True)[1]
    threshold = float(np.float32(iou_threshold))

    def exceeds(one: Tensor, other: Tensor) -> Tensor:
        return overlaps(read(one), read(other)) >= threshold

    return order[keep_by_blocks(dets.to(compute_dtype(dets))[order], exceeds, _BLOCK)]
