# Copyright (c) addp_mm contributors. Apache-2.0.
"""Overlap of rotated boxes and of quadrilaterals."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .polygons import (
    PairAreas,
    Polygons,
    convex_hulls,
    corners_at,
    cross,
    intersection_areas,
    shared_areas,
    shared_areas_of_pairs,
    signed_areas,
)

_IOU = 0
_NO_AREA = 1e-14  # mmcv's bound, also of parallel sides


class Boxes(NamedTuple):
    """N boxes of one kind."""

    polygons: Polygons
    areas: Tensor  # (N,)
    shared_area: PairAreas  # of two boxes


@mmcv_op
def box_iou_rotated(boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool) -> None:
    """Fill ``ious`` with the overlaps of two sets of rotated boxes.

    A box without area overlaps nothing.

    Args:
        boxes1: (M, 5) boxes (center x, center y, width, height, angle in radians, from x to y).
        boxes2: (N, 5) boxes; N = M if ``aligned``.
        ious: (M,) if ``aligned``, else (M * N,); filled in place.
        mode_flag: 0 divides by the union, 1 by the area of ``boxes1``.
        aligned: Whether to compare row by row, not all with all.
    """
    _fill(ious, boxes1, boxes2, rotated_boxes, mode_flag, aligned)


@mmcv_op
def box_iou_quadri(boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool) -> None:
    """Fill ``ious`` with the overlaps of two sets of convex quadrilaterals.

    The shared area is that of mmcv, see :func:`quadrilateral_areas`. Unlike there, it is at most
    the smaller area, and 0 if the bounding boxes are apart.

    Args:
        boxes1: (M, 8) corners (x1, y1, ..., x4, y4) in order, in either direction.
        boxes2: (N, 8) corners; N = M if ``aligned``.
        ious: As in :func:`box_iou_rotated`.
        mode_flag: As in :func:`box_iou_rotated`.
        aligned: As in :func:`box_iou_rotated`.
    """
    _fill(ious, boxes1, boxes2, quadrilaterals, mode_flag, aligned)


def rotated_boxes(boxes: Tensor) -> Boxes:
    """Read rotated boxes (N, 5 or more)."""
    cos, sin = boxes[:, 4].cos(), boxes[:, 4].sin()
    across = torch.stack([cos, sin], 1) * boxes[:, 2:3] / 2
    down = torch.stack([-sin, cos], 1) * boxes[:, 3:4] / 2
    corners = torch.stack([across + down, down - across, -across - down, across - down], 1)
    return Boxes(Polygons(boxes[:, :2], corners), boxes[:, 2] * boxes[:, 3], intersection_areas)


def quadrilaterals(boxes: Tensor) -> Boxes:
    """Read quadrilaterals (N, 8 or more)."""
    polygons = Polygons.of(boxes[:, :8].unflatten(1, (4, 2)))
    one, two, three = (polygons.corners[:, 1:] - polygons.corners[:, :1]).unbind(1)
    return Boxes(polygons, (cross(one, two).abs() + cross(two, three).abs()) / 2, quadrilateral_areas)


def overlaps(first: Boxes, second: Boxes, mode_flag: int = _IOU) -> Tensor:
    """Overlaps of M and N boxes, all with all: (M, N)."""
    shared = shared_areas(first.polygons, second.polygons, first.shared_area)
    return _divide(shared, first.areas[:, None], second.areas, mode_flag)


def _fill(
    ious: Tensor, boxes1: Tensor, boxes2: Tensor, read: Callable[[Tensor], Boxes], mode_flag: int, aligned: bool
) -> None:
    if ious.numel() == 0:
        return
    dtype = compute_dtype(boxes1, boxes2)
    first, second = read(boxes1.to(dtype)), read(boxes2.to(dtype))
    if not aligned:
        ious.copy_(overlaps(first, second, mode_flag).view(ious.shape))
        return
    rows = torch.arange(len(boxes1), device=boxes1.device)
    shared = shared_areas_of_pairs(first.polygons, second.polygons, rows, rows, first.shared_area)
    ious.copy_(_divide(shared, first.areas, second.areas, mode_flag))


def _divide(shared: Tensor, areas1: Tensor, areas2: Tensor, mode_flag: int) -> Tensor:
    """Divide shared areas by the union, or by the first area; all tensors broadcast."""
    # by rounding, the shared area could be larger than one of the two
    shared = torch.minimum(shared, torch.minimum(areas1, areas2).nan_to_num(nan=torch.inf))
    base = areas1 + areas2 - shared if mode_flag == _IOU else areas1
    empty = (areas1 < _NO_AREA) | (areas2 < _NO_AREA)
    return (shared / base).masked_fill(empty, 0)


def quadrilateral_areas(first: Tensor, second: Tensor) -> Tensor:
    """Areas that pairs of quadrilaterals share, as mmcv computes them.

    It is the area of the convex hull of the points where sides cross, and of the corners of each
    quadrilateral that are inside the other. mmcv tests the latter by projection on the first and
    the last side, which is exact for rectangles only. For others the area may be too large.

    Args:
        first: (P, 4, 2) corners.
        second: (P, 4, 2) corners.

    Returns:
        (P,).
    """
    crossings, crosses = _crossings(first, second)
    points = torch.cat([crossings, first, second], 1)
    valid = torch.cat([crosses, _inside(first, second), _inside(second, first)], 1)
    # the valid points first, then copies of one of them
    most = max(int(valid.sum(1).amax()), 1)
    valid, order = valid.sort(1, descending=True)
    points = corners_at(points, torch.where(valid, order, order[:, :1])[:, :most])
    return signed_areas(corners_at(points, convex_hulls(points))) * valid[:, 0]


def _crossings(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Points where sides cross: (P, 4, 2), (P, 4, 2) -> (P, 16, 2), and (P, 16) bool."""
    side, other = (corners.roll(-1, 1) - corners for corners in (first, second))
    side, other = side[:, :, None], other[:, None]
    gap = second[:, None] - first[:, :, None]
    scale = cross(other, side)
    crosses = scale.abs() > _NO_AREA
    scale = torch.where(crosses, scale, 1)
    along, along_other = cross(other, gap) / scale, cross(side, gap) / scale
    crosses = crosses & (along >= 0) & (along <= 1) & (along_other >= 0) & (along_other <= 1)
    points = first[:, :, None] + along[..., None] * side
    return points.flatten(1, 2), crosses.flatten(1)


def _inside(corners: Tensor, other: Tensor) -> Tensor:
    """Corners whose projections are on both sides of a corner: (P, 4, 2), (P, 4, 2) -> (P, 4)."""
    rays = corners - other[:, :1]
    inside = torch.ones_like(rays[..., 0], dtype=torch.bool)
    for neighbor in (1, 3):
        side = (other[:, neighbor] - other[:, 0])[:, None]
        along = (rays * side).sum(-1)
        inside &= (along >= 0) & (along <= side.square().sum(-1))
    return inside
