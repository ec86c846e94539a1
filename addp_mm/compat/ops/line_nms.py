# Copyright (c) addp_mm contributors. Apache-2.0.
"""Suppression of lanes (Zheng et al., CLRNet, https://arxiv.org/abs/2203.10350)."""

import numpy as np
import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .fallback import computed_on_cpu

_BEFORE_OFFSETS = 5  # values of a lane before its offsets
_START, _LENGTH = 2, 4


@mmcv_op
@computed_on_cpu
def line_nms_forward(boxes: Tensor, scores: Tensor, thresh: float, top_k: int) -> list[Tensor]:
    """Keep the lanes that are not near a better one.

    Two lanes are near if the mean distance of their points in the rows that both have is smaller
    than the threshold.

    Args:
        boxes: (N, 5 + S) lanes. Value 2 is the first row, from 0 to 1; value 4 the number of rows;
            the last S values are the columns of the lane in each of S rows.
        scores: (N,).
        thresh: In the unit of the columns.
        top_k: Lanes to keep at most.

    Returns:
        (N,) int64 indices of kept lanes, best first, then 0; () int64 number of kept lanes; (N,)
        int64 for each lane the number of the last kept lane that is it or is near it, from 1 on, or
        0 for none.
    """
    order = scores.sort(0, descending=True)[1]
    lanes, ranked = boxes.to(compute_dtype(boxes))[order].numpy(), order.numpy()
    keep, owner = np.zeros(len(lanes), np.int64), np.zeros(len(lanes), np.int64)
    alive, number = np.ones(len(lanes), dtype=bool), 0
    for lane in range(len(lanes)):
        if number == top_k:
            break
        if alive[lane]:
            hits = lane + 1 + np.flatnonzero(_near(lanes[lane], lanes[lane + 1 :], thresh))
            alive[hits] = False
            keep[number] = ranked[lane]
            number += 1
            owner[ranked[hits]] = owner[ranked[lane]] = number
    return [torch.from_numpy(np.asarray(values)) for values in (keep, np.int64(number), owner)]


def _near(lane: np.ndarray, others: np.ndarray, threshold: float) -> np.ndarray:
    """Which of (M, 5 + S) lanes are near a lane (5 + S,): (M,) bool."""
    rows = np.arange(len(lane) - _BEFORE_OFFSETS)
    first, last = _span(others, rows[-1])
    own_first, own_last = _span(lane[None], rows[-1])
    first, last = np.maximum(first, own_first), np.minimum(np.minimum(last, own_last), rows[-1])
    shared = (rows >= first[:, None]) & (rows <= last[:, None])
    with np.errstate(invalid='ignore'):
        distance = abs(lane[_BEFORE_OFFSETS:] - others[:, _BEFORE_OFFSETS:]).sum(1, where=shared)
        return (first >= 0) & (last >= first) & (distance < np.float32(threshold) * (last - first + 1))


def _span(lanes: np.ndarray, last_row: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last row of lanes (M, 5 + S). A lane with NaN or Inf has none."""
    finite = np.isfinite(lanes[:, [_START, _LENGTH]]).all(1)
    start, length = (np.where(finite, lanes[:, column], 0) for column in (_START, _LENGTH))
    first = np.trunc(start * last_row + 0.5)
    return first, first + np.trunc(length) - 1
