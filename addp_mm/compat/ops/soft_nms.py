# Copyright (c) addp_mm contributors. Apache-2.0.
"""Soft non-maximum suppression (Bodla et al., https://arxiv.org/abs/1704.04503)."""

import numpy as np
import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .fallback import computed_on_cpu

_NAIVE, _LINEAR, _GAUSSIAN = range(3)


@mmcv_op
@computed_on_cpu
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
    # a column for each box: x1, y1, x2, y2, score, area
    table = torch.cat([boxes.to(dtype).t(), scores.to(dtype)[None], scores.to(dtype)[None]]).numpy().copy()
    real = table.dtype.type
    inds, count, best = np.arange(len(scores)), len(scores), 0
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        table[5] = np.prod(table[2:4] - table[:2] + real(offset), axis=0)
        while best < count:
            top = best + _first_best(table[4, best:count])
            if top != best:
                moved = table[:, best].copy()
                table[:, best], table[:, top] = table[:, top], moved
                inds[best], inds[top] = inds[top], inds[best]
            rest = table[:, best + 1 : count]
            overlaps = _overlaps(table[:, best], rest, real(offset))
            if method == _GAUSSIAN:
                rest[4] *= np.exp(-(overlaps * overlaps) / real(sigma))
            else:
                hits = np.flatnonzero(overlaps >= real(iou_threshold))
                rest[4, hits] *= real(0) if method == _NAIVE else real(1) - overlaps[hits]
            drops = rest[4] < real(min_score)
            best += 1
            if np.count_nonzero(drops):
                order = _fill_from_the_end(~drops)
                for array in (rest, inds[None, best:count]):
                    array[:, : len(order)] = array[:, order]
                count = best + len(order)
    dets[:count] = torch.from_numpy(table[:5, :count].T.copy()).to(dets)
    return torch.from_numpy(inds[:count])


def _first_best(scores: np.ndarray) -> int:
    """Index of the best score.

    As in mmcv, NaN is never better than the first score, and nothing is better than a first NaN.
    """
    best = int(scores.argmax())  # the first NaN, if there is one
    return int(np.nanargmax(scores)) if best > 0 and np.isnan(scores[best]) else best


def _overlaps(box: np.ndarray, others: np.ndarray, offset: np.floating) -> np.ndarray:
    """Overlaps of a column with others; NaN if one of its numbers is, as in mmcv."""
    sides = np.minimum(box[2:4, None], others[2:4])
    sides -= np.maximum(box[:2, None], others[:2])
    if offset:
        sides += offset
    np.maximum(sides, 0, out=sides)
    inter = sides[0] * sides[1]
    return inter / (box[5] + others[5] - inter)


def _fill_from_the_end(stays: np.ndarray) -> np.ndarray:
    """Order after the last kept element has filled each gap: (N,) bool -> (K,) indices."""
    count = int(stays.sum())
    order = np.arange(count)
    order[~stays[:count]] = (count + np.flatnonzero(stays[count:]))[::-1]
    return order
