# Copyright (c) addp_mm contributors. Apache-2.0.
"""Smallest rectangles around point sets (Freeman and Shapira, doi:10.1145/360881.360919)."""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .polygons import convex_hulls, corners_at


@mmcv_op
def min_area_polygons(pointsets: Tensor, polygons: Tensor) -> None:
    """Fill ``polygons`` with the smallest rectangles, of any rotation, around all points of a set.

    A side of the smallest rectangle lies on a side of the convex hull. Of equal areas, that of the
    first side is taken, from the point of the smallest y and then x on.

    Args:
        pointsets: (N, 18) nine points (x1, y1, ..., x9, y9) each.
        polygons: (N, 8) corners (x1, y1, ..., x4, y4); filled in place. With axes u in the first
            quadrant and v (u turned from x to y), they are (max u, min v), (min u, min v),
            (min u, max v) and (max u, max v).
    """
    if polygons.numel() == 0:
        return
    points = pointsets.to(compute_dtype(pointsets)).unflatten(1, (9, 2))
    middle = points.mean(1, keepdim=True)
    points = points - middle
    hull = corners_at(points, convex_hulls(points))
    first = _first_quadrant(hull.roll(-1, 1) - hull)  # (N, H, 2)
    second = torch.stack([-first[..., 1], first[..., 0]], -1)
    # sums of products, not matmul, which may round its inputs on a GPU
    spans = torch.stack([(axis[:, :, None] * points[:, None]).sum(-1) for axis in (first, second)], -1)
    low, high = spans.amin(2), spans.amax(2)  # (N, H, 2) along both axes
    best = (high - low).prod(-1).argmin(1)[:, None, None].expand(-1, 1, 2)
    first, second, low, high = (values.gather(1, best) for values in (first, second, low, high))
    along = torch.cat([high[..., :1], low[..., :1], low[..., :1], high[..., :1]], 1)
    across = torch.cat([low[..., 1:], low[..., 1:], high[..., 1:], high[..., 1:]], 1)
    polygons.copy_((middle + along * first + across * second).flatten(1))


def _first_quadrant(sides: Tensor) -> Tensor:
    """Directions of sides (..., 2), after quarter turns to x > 0 and y >= 0; x without length.

    As in the compiled operator, the side (0, -1) is turned by half a turn, not by a quarter.
    """
    x, y = sides.unbind(-1)
    length = sides.norm(dim=-1)
    turned = [(x > 0) & (y >= 0), (x <= 0) & (y > 0), (x <= 0) & (y <= 0) & (length > 0), (x > 0) & (y < 0)]
    pairs = [(x, y), (y, -x), (-x, -y), (-y, x)]
    unit = torch.stack([torch.ones_like(x), torch.zeros_like(x)], -1)
    for here, pair in zip(turned, pairs, strict=True):
        unit = torch.where(here[..., None], torch.stack(pair, -1) / length[..., None], unit)
    return unit
