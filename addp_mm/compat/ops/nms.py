# Copyright (c) addp_mm contributors. Apache-2.0.
"""Greedy non-maximum suppression with mmcv's order, threshold and offset."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

from .common import compute_dtype, mmcv_op
from .fallback import computed_on_cpu

_BLOCK = 512
_MATCH_BLOCK = 128
_PART = 256


@mmcv_op
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Keep the boxes that do not overlap a box of higher score by more than ``iou_threshold``.

    mmcv orders equal scores as ``Tensor.sort(descending=True)`` does, torchvision by a stable sort.
    So this function sorts the boxes by the same call, and passes their ranks to torchvision as
    scores. With ``offset=0`` and a threshold rounded to float32, torchvision's arithmetic equals
    mmcv's. On CUDA mmcv multiplies and torchvision divides, so that the result may differ for
    overlaps within a rounding error of the threshold.

    Args:
        boxes: (N, 4) boxes (x1, y1, x2, y2) in pixels.
        scores: (N,).
        iou_threshold: In [0, 1].
        offset: 0 or 1; the width of a box is ``x2 - x1 + offset``.

    Returns:
        (K,) int64 indices of the kept boxes, best first.
    """
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    order = scores.sort(0, descending=True)[1]
    boxes = boxes.to(compute_dtype(boxes))[order]
    threshold = float(np.float32(iou_threshold))
    if boxes.device.type != 'cpu':
        return order[_greedy_keep(boxes, threshold, offset)]
    keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for part in _parts(boxes.numpy(), offset):
        part.sort()  # best first again
        members = torch.from_numpy(part)
        keep[members[_greedy_keep(boxes[members], threshold, offset)]] = True
    return order[keep]


def _parts(boxes: np.ndarray, offset: int) -> list[np.ndarray]:
    """Split boxes (N, 4) where none overlaps one of the other side.

    ``batched_nms`` moves the boxes of each class to a region of their own, and NMS of all classes
    together would compare each box with those of all classes.
    """
    by_start = boxes[:, 0].argsort(kind='stable')
    with np.errstate(invalid='ignore'):
        reach = np.maximum.accumulate(boxes[by_start, 2])[:-1]
        apart = reach - boxes[by_start[1:], 0] + boxes.dtype.type(offset) <= 0  # NaN is not apart
    cuts = 1 + np.flatnonzero(apart)
    # at most one cut in each block: the overhead of a part is that of about so many boxes
    return np.split(by_start, cuts[np.diff(cuts // _PART, prepend=0) > 0])


def _greedy_keep(boxes: Tensor, threshold: float, offset: int) -> Tensor:
    """Kept boxes of (N, 4), best first: indices, or a mask."""
    if offset == 0:
        ranks = torch.arange(len(boxes), 0, -1, dtype=boxes.dtype, device=boxes.device)
        return torchvision_nms(boxes, ranks, threshold)
    return keep_by_blocks(boxes, lambda first, second: _exceeds(first, second, threshold, offset), _BLOCK)


def keep_by_blocks(boxes: Tensor, exceeds: Callable[[Tensor, Tensor], Tensor], block_size: int) -> Tensor:
    """Mark the boxes that are kept.

    A block are the best boxes that no block before has suppressed. It is copied to the CPU once.

    Args:
        boxes: (N, any number of columns), best first.
        exceeds: Marks the pairs of which the worse box is suppressed: M and N boxes -> (M, N) bool.
        block_size: Boxes of a block.

    Returns:
        (N,) bool.
    """
    keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    left = torch.arange(len(boxes), device=boxes.device)
    while len(left):
        block, left = left[:block_size], left[block_size:]
        inner = exceeds(boxes[block], boxes[block]).triu(1).cpu().numpy()
        on_cpu = np.ones(len(block), dtype=bool)
        for row, hits in enumerate(inner):
            if on_cpu[row]:
                on_cpu &= ~hits
        kept = block[torch.from_numpy(on_cpu).to(boxes.device)]
        keep[kept] = True
        if len(left):
            left = left[~exceeds(boxes[kept], boxes[left]).any(0)]
    return keep


def _exceeds(first: Tensor, second: Tensor, threshold: float, offset: int) -> Tensor:
    """Mark pairs that overlap by more than the threshold: (M, 4), (N, 4) -> (M, N) bool."""
    inter, union = _shared_and_united(first, second, offset)
    # mmcv's CPU kernel divides, its CUDA kernel multiplies; other accelerators follow CUDA
    return inter.div_(union) > threshold if first.device.type == 'cpu' else inter > union.mul_(threshold)


def _shared_and_united(first: Tensor, second: Tensor, offset: int) -> tuple[Tensor, Tensor]:
    """Areas of intersection and union of all pairs: (M, 4), (N, 4) -> two (M, N).

    Each step works on whole rows of memory, not on coordinates side by side.
    """
    left, top, right, bottom = first.t()[..., None]
    others = second.t().contiguous()
    width = torch.minimum(right, others[2]).sub_(torch.maximum(left, others[0])).add_(offset).clamp_(min=0)
    height = torch.minimum(bottom, others[3]).sub_(torch.maximum(top, others[1])).add_(offset).clamp_(min=0)
    inter = width.mul_(height)
    return inter, (_areas(first, offset)[:, None] + _areas(second, offset)).sub_(inter)


def _areas(boxes: Tensor, offset: int) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0] + offset) * (boxes[..., 3] - boxes[..., 1] + offset)


@mmcv_op
@computed_on_cpu
def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group each kept box with those that it suppresses (overlap of at least ``iou_threshold``).

    Args:
        dets: (N, 5) boxes and scores.
        iou_threshold: In [0, 1].

    Returns:
        One list for each kept box, best first: its index, then the indices of the boxes that it
        suppressed, in order of score.
    """
    order = dets[:, 4].contiguous().sort(0, descending=True)[1]
    boxes = dets[:, :4].to(compute_dtype(dets))[order]
    ranked, threshold = order.numpy(), float(np.float32(iou_threshold))
    alive = np.ones(len(boxes), dtype=bool)
    groups = []
    for start in range(0, len(boxes), _MATCH_BLOCK):
        rows = start + np.flatnonzero(alive[start : start + _MATCH_BLOCK])
        inter, union = _shared_and_united(boxes[rows], boxes[start:], offset=0)
        for row, hits in zip(rows, (inter.div_(union) >= threshold).numpy(), strict=True):
            if alive[row]:
                matched = row + 1 + np.flatnonzero(hits[row + 1 - start :] & alive[row + 1 :])
                alive[matched] = False
                groups.append([int(ranked[row]), *ranked[matched].tolist()])
    return groups
