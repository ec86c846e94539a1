# Copyright (c) addp_mm contributors. Apache-2.0.
"""Order of the corners of the intersection of two rectangles, for the differentiable overlap.

It is that of Zhou et al. (https://arxiv.org/abs/1908.03851); mmcv does the rest with torch.
"""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op

_CORNERS = 8  # of the two rectangles, and at most as many of the intersection
_SAME = 1e-8  # mmcv's bound for equal coordinates


@mmcv_op
def diff_iou_rotated_sort_vertices_forward(vertices: Tensor, mask: Tensor, num_valid: Tensor) -> Tensor:
    """Sort the valid points by their angle around the origin.

    Of equal points only the first is taken, and of more than eight points, which can only be equal
    but for rounding, the eight with the largest angle to the point before.

    Args:
        vertices: (B, N, 24, 2) points around their mean: the corners of both rectangles, then the
            points where sides cross.
        mask: (B, N, 24) bool, the valid points.
        num_valid: (B, N) number of valid points.

    Returns:
        (B, N, 9) int32 indices: the points, then the first one again, then an invalid point. The
        invalid point only, if there are fewer than three points.
    """
    x, y = vertices.to(compute_dtype(vertices)).unbind(-1)
    angle = torch.atan2(y, x)
    angle = torch.where(angle < 0, angle + 2 * torch.pi, angle).masked_fill(~mask, torch.inf)
    angle, order = angle.sort(dim=-1, stable=True)
    kept = angle.isfinite() & ~_repeats(x.gather(-1, order), y.gather(-1, order))
    kept &= _widest(angle, kept)
    count = kept.sum(-1, keepdim=True)
    # the kept points first, in their order
    order = order.gather(-1, kept.sort(dim=-1, descending=True, stable=True)[1])[..., : _CORNERS + 1]
    padding = _CORNERS + (~mask[..., _CORNERS:]).to(torch.uint8).argmax(-1, keepdim=True)
    slot = torch.arange(_CORNERS + 1, device=vertices.device)
    index = torch.where(slot < count, order, torch.where(slot == count, order[..., :1], padding))
    return torch.where(num_valid[..., None] < 3, padding, index).int()


def _repeats(x: Tensor, y: Tensor) -> Tensor:
    """Mark points (..., K) that equal the one before."""
    same = (x.diff(dim=-1).abs() < _SAME) & (y.diff(dim=-1).abs() < _SAME)
    return torch.cat([torch.zeros_like(same[..., :1]), same], -1)


def _widest(angle: Tensor, kept: Tensor) -> Tensor:
    """Mark the points (..., K) of the eight largest angles to the kept point before."""
    before = angle.masked_fill(~kept, -torch.inf).cummax(-1)[0].roll(1, -1)
    before[..., 0] = -torch.inf  # the first point stays
    gap = (angle - before).masked_fill(~kept, -torch.inf)
    rank = gap.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    return rank < _CORNERS
