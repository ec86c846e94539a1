# Copyright (c) addp_mm contributors. Apache-2.0.
"""Overlap and suppression of upright 3-D boxes, seen from above (bird's eye view)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .box_iou_polygon import rotated_boxes
from .common import compute_dtype, mmcv_op
from .nms import keep_by_blocks
from .polygons import cross, shared_areas

_BLOCK = 128
_MARGIN = 1e-2  # of the compiled operator, in the unit of the boxes
_SMALLEST_UNION = 1e-8


@mmcv_op
def iou3d_boxes_overlap_bev_forward(boxes_a: Tensor, boxes_b: Tensor, ans_iou: Tensor) -> None:
    """Compute the areas that boxes share, seen from above.

    As in the compiled operator, a corner that is up to 0.01 outside a box counts as inside. So
    areas are a little too large where boxes touch or nearly share a side.

    Args:
        boxes_a: (M, 7): x, y, z of the centre, sizes in x, y and z, and the angle in radians, from
            x to y.
        boxes_b: (N, 7).
        ans_iou: (M, N); filled in place with areas, despite its name.
    """
    if ans_iou.numel():
        dtype = compute_dtype(boxes_a, boxes_b)
        ans_iou.copy_(_shared(boxes_a.to(dtype), boxes_b.to(dtype)))


@mmcv_op
def iou3d_nms3d_forward(boxes: Tensor, keep: Tensor, num_out: Tensor, nms_overlap_thresh: float) -> None:
    """Keep the boxes that overlap no better one by more than the threshold, seen from above.

    Args:
        boxes: (N, 7) as in :func:`iou3d_boxes_overlap_bev_forward`, best first.
        keep: (N,) int64; filled in place with the indices of kept boxes, best first.
        num_out: () int64; filled in place with their number.
        nms_overlap_thresh: In [0, 1].
    """
    _nms(boxes, keep, num_out, nms_overlap_thresh, _shared)


@mmcv_op
def iou3d_nms3d_normal_forward(boxes: Tensor, keep: Tensor, num_out: Tensor, nms_overlap_thresh: float) -> None:
    """As :func:`iou3d_nms3d_forward`, with all angles 0."""
    _nms(boxes, keep, num_out, nms_overlap_thresh, _shared_upright)


def _nms(
    boxes: Tensor, keep: Tensor, num_out: Tensor, threshold: float, shared: Callable[[Tensor, Tensor], Tensor]
) -> None:
    def exceeds(one: Tensor, other: Tensor) -> Tensor:
        common = shared(one, other)
        union = (one[:, 3] * one[:, 4])[:, None] + other[:, 3] * other[:, 4] - common
        return common / union.clamp(min=_SMALLEST_UNION) > threshold

    kept = keep_by_blocks(boxes.to(compute_dtype(boxes)), exceeds, _BLOCK).nonzero()[:, 0]
    keep[: len(kept)] = kept.to(keep.device)
    num_out.fill_(len(kept))


def _shared(first: Tensor, second: Tensor) -> Tensor:
    """Areas that boxes share, seen from above: (M, 7), (N, 7) -> (M, N)."""
    one, other = (rotated_boxes(boxes[:, [0, 1, 3, 4, 6]]).polygons for boxes in (first, second))
    return shared_areas(one, other, _areas_with_margin, gap=_MARGIN * 2**0.5)


def _areas_with_margin(first: Tensor, second: Tensor) -> Tensor:
    """Areas of the points where sides cross and of the corners inside, in order of their angles.

    Args:
        first: (P, 4, 2) corners of rectangles.
        second: (P, 4, 2) corners.

    Returns:
        (P,).
    """
    crossings, crosses = _crossings(first, second)
    points = torch.cat([crossings, first, second], 1)
    valid = torch.cat([crosses, _nearly_inside(first, second), _nearly_inside(second, first)], 1)
    middle = (points * valid[..., None]).sum(1, keepdim=True) / valid.sum(1).clamp(min=1)[:, None, None]
    x, y = (points - middle).unbind(2)
    order = torch.where(valid, torch.atan2(y, x), torch.inf).argsort(dim=1, stable=True)
    # what is not valid is last; it becomes the first point and adds no area
    order = torch.where(valid.gather(1, order), order, order[:, :1])
    rays = points.gather(1, order[..., None].expand_as(points))
    rays = rays - rays[:, :1]
    return cross(rays[:, :-1], rays[:, 1:]).sum(1).abs() / 2


def _crossings(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Points where sides cross, ends not included: -> (P, 16, 2), and (P, 16) bool."""
    start, end = first[:, :, None], first.roll(-1, 1)[:, :, None]
    other_start, other_end = second[:, None], second.roll(-1, 1)[:, None]
    side, other = end - start, other_end - other_start
    from_start, from_end = cross(other_start - start, side), cross(other_end - start, side)
    crosses = (from_start * from_end < 0) & (cross(start - other_start, other) * cross(end - other_start, other) < 0)
    share = from_start / torch.where(crosses, from_start - from_end, 1)
    return (other_start + share[..., None] * other).flatten(1, 2), crosses.flatten(1)


def _nearly_inside(corners: Tensor, other: Tensor) -> Tensor:
    """Corners that are in the other rectangle, or close to it: (P, 4, 2), (P, 4, 2) -> (P, 4)."""
    rays = corners - other.mean(1, keepdim=True)
    inside = torch.ones_like(rays[..., 0], dtype=torch.bool)
    for neighbor, third in ((1, 3), (3, 1)):
        side, next_side = other[:, neighbor] - other[:, 0], other[:, third] - other[:, 0]
        length = side.norm(dim=1, keepdim=True)
        # a side of length 0 has the direction across the other one
        across = torch.stack([-next_side[:, 1], next_side[:, 0]], 1)
        direction = F.normalize(torch.where(length > 0, side, across), dim=1)
        inside &= (rays * direction[:, None]).sum(2).abs() < length / 2 + _MARGIN
    return inside


def _shared_upright(first: Tensor, second: Tensor) -> Tensor:
    """The same with all angles 0."""
    ends = [[boxes[:, :2] + side * boxes[:, 3:5] / 2 for side in (-1, 1)] for boxes in (first, second)]
    (low, high), (other_low, other_high) = ends
    sides = torch.minimum(high[:, None], other_high) - torch.maximum(low[:, None], other_low)
    return sides.clamp(min=0).prod(2)
