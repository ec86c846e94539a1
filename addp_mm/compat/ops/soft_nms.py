# Copyright (c) addp_mm contributors. Apache-2.0.
"""Soft non-maximum suppression (Bodla et al., https://arxiv.org/abs/1704.04503)."""

import numpy as np
import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op

_NAIVE, _LINEAR, _GAUSSIAN = range(3)


@mmcv_op
def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of boxes that overlap better boxes, and drop those below ``min_score``.

    As in mmcv, the last boxes replace the dropped ones, because this order decides between equal
    scores later. The best box of each round stays, even below ``min_score``.

    Args:
        boxes: (N, 4) boxes (x1, y1, x2, y2) in pixels.
        scores: (N,).
        dets: (N, 5); the first K rows are filled with the kept boxes and their new scores.
        iou_threshold: Overlap from which 'naive' and 'linear' act.
        sigma: Width of the Gaussian.
        min_score: Boxes below it are dropped.
        method: 0 naive, 1 linear, 2 Gaussian.
        offset: 0 or 1; the width of a box is ``x2 - x1 + offset``.

    Returns:
        (K,) int64 indices in the order of the rows of ``dets``.
    """
    dtype = compute_dtype(boxes, scores)
    rows = torch.cat([boxes.to(dtype), scores.to(dtype)[:, None]], dim=1).cpu().numpy().copy()
    real = rows.dtype.type
    with np.errstate(invalid='ignore'):
        areas = (rows[:, 2] - rows[:, 0] + real(offset)) * (rows[:, 3] - rows[:, 1] + real(offset))
    inds, count, best = np.arange(len(rows)), len(rows), 0
    while best < count:
        top = best + _first_best(rows[best:count, 4])
        for array in (rows, areas, inds):
            array[[best, top]] = array[[top, best]]
        rest = slice(best + 1, count)
        overlaps = _overlaps(rows[best], areas[best], rows[rest], areas[rest], offset)
        with np.errstate(invalid='ignore'):
            rows[rest, 4] *= _weights(overlaps, iou_threshold, sigma, method)
        stays = ~(rows[rest, 4] < real(min_score))
        order = _fill_from_the_end(stays) + best + 1
        for array in (rows, areas, inds):
            array[best + 1 : best + 1 + len(order)] = array[order]
        best, count = best + 1, best + 1 + len(order)
    dets[:count] = torch.from_numpy(rows[:count]).to(dets)
    return torch.from_numpy(inds[:count]).to(boxes.device)


def _first_best(scores: np.ndarray) -> int:
    """Index of the best score.

    As in mmcv, NaN is never better than the first score, and nothing is better than a first NaN.
    """
    best = int(scores.argmax())  # the first NaN, if there is one
    return int(np.nanargmax(scores)) if best > 0 and np.isnan(scores[best]) else best


def _overlaps(box: np.ndarray, area: np.ndarray, others: np.ndarray, areas: np.ndarray, offset: int) -> np.ndarray:
    """Overlaps with each of the others; NaN is compared as by C++'s std::max and std::min."""
    with np.errstate(divide='ignore', invalid='ignore'):
        left_top = np.where(box[:2] < others[:, :2], others[:, :2], box[:2])
        right_bottom = np.where(others[:, 2:4] < box[2:4], others[:, 2:4], box[2:4])
        sides = right_bottom - left_top + box.dtype.type(offset)
        inter = np.where(sides > 0, sides, box.dtype.type(0)).prod(1)
        return inter / (area + areas - inter)


def _weights(overlaps: np.ndarray, iou_threshold: float, sigma: float, method: int) -> np.ndarray:
    real = overlaps.dtype.type
    if method == _GAUSSIAN:
        return np.exp(-(overlaps * overlaps) / real(sigma))
    lowered = real(0) if method == _NAIVE else real(1) - overlaps
    return np.where(overlaps >= real(iou_threshold), lowered, real(1))


def _fill_from_the_end(stays: np.ndarray) -> np.ndarray:
    """Order after the last kept element has filled each gap: (N,) bool -> (K,) indices."""
    count = int(stays.sum())
    order = np.arange(count)
    order[~stays[:count]] = (count + np.flatnonzero(stays[count:]))[::-1]
    return order
