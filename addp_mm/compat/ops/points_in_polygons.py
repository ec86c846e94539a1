# Copyright (c) addp_mm contributors. Apache-2.0.
"""Which points are inside which quadrilaterals, by counting crossings of a ray."""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op


@mmcv_op
def points_in_polygons_forward(points: Tensor, polygons: Tensor, output: Tensor) -> None:
    """Fill ``output`` with 1 for each point inside a quadrilateral, and with 0 for the others.

    The sides are read in mmcv's order, and the first one that the point lies on ends the count. So
    the same points of the outline are inside as in mmcv.

    Args:
        points: (B, 2) x and y.
        polygons: (M, 8) corners (x1, y1, ..., x4, y4), in order.
        output: (B, M); filled in place.
    """
    if output.numel() == 0:
        return
    dtype = compute_dtype(points, polygons)
    x, y = points.to(dtype)[:, :, None].unbind(1)  # (B, 1)
    corners = polygons.to(dtype).unflatten(1, (4, 2))
    inside = torch.zeros(output.shape, dtype=torch.bool, device=output.device)
    counting = torch.ones_like(inside)
    for corner in range(4):
        (end_x, end_y), (start_x, start_y) = corners[:, corner].unbind(1), corners[:, corner - 1].unbind(1)
        at_corner = ((end_x == x) & (end_y == y)) | ((start_x == x) & (start_y == y))
        spans = (end_y < y) != (start_y < y)
        height = torch.where(start_y == end_y, 1, start_y - end_y)
        crossing = end_x + (y - end_y) * (start_x - end_x) / height
        counting &= ~(at_corner | (spans & (crossing == x)))
        inside ^= counting & spans & (crossing > x)
    output.copy_(inside)
