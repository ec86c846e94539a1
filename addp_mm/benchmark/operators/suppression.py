# Copyright (c) addp_mm contributors. Apache-2.0.
"""Suppression and overlap of boxes."""

from collections.abc import Callable

import torch
import torchvision
from mmcv import ops
from torch import Tensor

from addp_mm.benchmark.operators.measured import Inputs, measured


def kept_by_loop(overlaps: Tensor, scores: Tensor, suppresses: Callable[[Tensor], Tensor]) -> Tensor:
    """Greedy suppression by a loop over the kept boxes.

    Args:
        overlaps: (N, N).
        scores: (N,).
        suppresses: Marks the overlaps that suppress the worse box.
    """
    order, kept = scores.argsort(descending=True), []
    while len(order):
        kept.append(order[0])
        order = order[1:][~suppresses(overlaps[order[0], order[1:]])]
    return torch.stack(kept)


@measured('torchvision')
def nms(make: Inputs):
    """2000 proposals of an image."""
    boxes = make.boxes(make.size(2000), 800, 1333)
    scores = make.scores(len(boxes))
    return lambda: ops.nms(boxes, scores, 0.7)[1], lambda: torchvision.ops.nms(boxes, scores, 0.7)


@measured('a loop over the kept boxes')
def nms_offset(make: Inputs):
    """2000 proposals, boxes of whole pixels as in mmdet 1.x."""
    boxes = make.boxes(make.size(2000), 800, 1333)
    scores = make.scores(len(boxes))

    def plain() -> Tensor:
        grow = torch.tensor([0, 0, 1, 1], device=boxes.device)
        overlaps = torchvision.ops.box_iou(boxes + grow, boxes + grow)
        return kept_by_loop(overlaps, scores, lambda found: found > 0.7)

    return lambda: ops.nms(boxes, scores, 0.7, offset=1)[1], plain


@measured('torchvision')
def batched_nms(make: Inputs):
    """5000 boxes of 80 classes."""
    boxes = make.boxes(make.size(5000), 800, 1333)
    scores, classes = make.scores(len(boxes)), make.whole(80, len(boxes))
    own = dict(type='nms', iou_threshold=0.5)
    return (
        lambda: ops.batched_nms(boxes, scores, classes, own)[1],
        lambda: torchvision.ops.batched_nms(boxes, scores, classes, 0.5),
    )


@measured('a loop over the kept boxes')
def nms_match(make: Inputs):
    """1000 boxes."""
    boxes = make.boxes(make.size(1000), 800, 1333)
    scores = make.scores(len(boxes))
    rows = torch.cat([boxes, scores[:, None]], dim=1)

    def plain() -> list[Tensor]:
        order, groups = scores.argsort(descending=True), []
        overlaps = torchvision.ops.box_iou(boxes, boxes)
        while len(order):
            hits = overlaps[order[0], order] >= 0.5
            hits[0] = True
            groups.append(order[hits])
            order = order[~hits]
        return groups

    return lambda: list(ops.nms_match(rows, 0.5)), plain


def _soft_nms(make: Inputs, method: str):
    boxes = make.boxes(make.size(1000), 800, 1333)
    scores = make.scores(len(boxes))

    def plain() -> Tensor:
        overlaps = torchvision.ops.box_iou(boxes, boxes)
        weights = torch.exp(-(overlaps**2) / 0.5) if method == 'gaussian' else 1 - overlaps * (overlaps > 0.3)
        left, order = scores.clone(), []
        while left.max() > 1e-3:
            best = int(left.argmax())
            order.append(best)
            left[best] = -1
            left = torch.where(left > 0, left * weights[best], left)
        return torch.tensor(order, device=boxes.device)

    return lambda: ops.soft_nms(boxes, scores, 0.3, 0.5, 1e-3, method)[1], plain


@measured('a loop over the boxes')
def soft_nms(make: Inputs):
    """1000 boxes, linear weights."""
    return _soft_nms(make, 'linear')


@measured('a loop over the boxes')
def soft_nms_gaussian(make: Inputs):
    """1000 boxes, Gaussian weights."""
    return _soft_nms(make, 'gaussian')


@measured('torchvision')
def bbox_overlaps(make: Inputs):
    """2000 boxes against 100."""
    one, other = (make.boxes(make.size(count), 800, 1333) for count in (2000, 100))
    return lambda: ops.bbox_overlaps(one, other), lambda: torchvision.ops.box_iou(one, other)
