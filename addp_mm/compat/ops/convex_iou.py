# Copyright (c) addp_mm contributors. Apache-2.0.
"""Overlap of the convex hulls of point sets with quadrilaterals.

Used by detectors with point sets for rotated boxes (Guo et al., https://arxiv.org/abs/2108.00211).
"""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .polygons import Polygons, convex_hulls, corners_at, intersection_areas, row_chunks, shared_areas, signed_areas


@mmcv_op
def convex_iou(pointsets: Tensor, polygons: Tensor, ious: Tensor) -> None:
    """Fill ``ious`` with the overlaps of all point sets with all quadrilaterals.

    Args:
        pointsets: (N, 18) nine points (x1, y1, ..., x9, y9) each.
        polygons: (K, 8) corners (x1, y1, ..., x4, y4) of convex quadrilaterals, in order.
        ious: (N, K); filled in place. 0 if neither has an area.
    """
    if ious.numel() == 0:
        return
    points, corners = _read(pointsets, polygons)
    hulls = Polygons.of(corners_at(points, convex_hulls(points)))
    quads = Polygons.of(corners)
    areas, other = signed_areas(hulls.corners).abs()[:, None], signed_areas(quads.corners).abs()
    shared = torch.minimum(shared_areas(hulls, quads, intersection_areas), torch.minimum(areas, other))
    union = areas + other - shared
    ious.copy_(torch.where(union == 0, 0, shared / union))


@mmcv_op
def convex_giou(pointsets: Tensor, polygons: Tensor, output: Tensor) -> None:
    """Fill ``output`` with generalized overlaps, row by row, and their gradients for the points.

    The generalized overlap is that of Rezatofighi et al. (https://arxiv.org/abs/1902.09630). Of
    equal points, the first has the gradient. If there is no area at all, both are 0. Where sides of
    the two lie on each other, the overlap has no unique gradient, and this one may differ from
    mmcv's.

    Args:
        pointsets: (N, 18) nine points (x1, y1, ..., x9, y9) each.
        polygons: (N, 8) corners (x1, y1, ..., x4, y4) of convex quadrilaterals, in order.
        output: (N, 19): the gradients of the points, then the overlaps; filled in place.
    """
    if output.numel() == 0:
        return
    points, corners = _read(pointsets, polygons)
    for rows in row_chunks(len(points)):
        with torch.enable_grad():
            some = points[rows].detach().requires_grad_()
            giou = _generalized(some, corners[rows])
        (grad,) = torch.autograd.grad(giou, some, torch.ones_like(giou))
        result = torch.cat([grad.flatten(1), giou.detach()[:, None]], 1)
        # without any area, 0; but NaN of the inputs stays
        known = torch.cat([points[rows].flatten(1), corners[rows].flatten(1)], 1).isfinite().all(1, keepdim=True)
        output[rows] = torch.where(known, result.nan_to_num(0), result).to(output.dtype)


def _read(pointsets: Tensor, polygons: Tensor) -> tuple[Tensor, Tensor]:
    """Points (N, 9, 2) and corners (K, 4, 2)."""
    dtype = compute_dtype(pointsets, polygons)
    return pointsets.to(dtype).unflatten(1, (9, 2)), polygons.to(dtype).unflatten(1, (4, 2))


def _generalized(points: Tensor, corners: Tensor) -> Tensor:
    """Generalized overlaps: (N, K, 2), (N, 4, 2) -> (N,)."""
    middle = torch.cat([points, corners], 1).detach().mean(1, keepdim=True)
    points, corners = points - middle, corners - middle
    hull = corners_at(points, convex_hulls(points.detach()))
    both = torch.cat([points, corners], 1)
    around = signed_areas(corners_at(both, convex_hulls(both.detach())))
    shared = intersection_areas(hull, corners)
    union = signed_areas(hull) + signed_areas(corners).abs() - shared
    return shared / union - (around - union) / around
