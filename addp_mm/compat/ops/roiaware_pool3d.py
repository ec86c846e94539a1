# Copyright (c) addp_mm contributors. Apache-2.0.
"""RoI-aware pooling of points (Shi et al., Part-A2 net, https://arxiv.org/abs/1907.03670)."""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .point_neighbours import ranks_of_sorted
from .points_in_boxes import inside_boxes, positions_in_boxes

_MAX = 0


@mmcv_op
def roiaware_pool3d_forward(
    rois: Tensor,
    pts: Tensor,
    pts_feature: Tensor,
    argmax: Tensor,
    pts_idx_of_voxels: Tensor,
    pooled_features: Tensor,
    pool_method: int,
) -> None:
    """Pool the features of the points in each cell of each box.

    Args:
        rois: (N, 7): x, y, z of the centre of the bottom, sizes in x, y and z, and the angle in
            radians, from x to y.
        pts: (P, 3).
        pts_feature: (P, C).
        argmax: (N, X, Y, Z, C) int32; filled in place with the point of the maximum, or -1, if
            ``pool_method`` is 0.
        pts_idx_of_voxels: (N, X, Y, Z, K) int32 zeros; filled with the number of points of a cell
            and with the first K - 1 points.
        pooled_features: (N, X, Y, Z, C); filled in place; stays as it is in empty cells.
        pool_method: 0 maximum, 1 average.
    """
    box, point, cell = _cells(rois, pts, pts_idx_of_voxels.shape[1:4])
    cells = pts_idx_of_voxels.flatten(0, 3)  # a view
    cell = box * (len(cells) // max(len(rois), 1)) + cell
    cell, order = cell.sort(stable=True)
    rank = ranks_of_sorted(cell)
    kept = rank < cells.size(1) - 1
    cell, point, rank = cell[kept], point[order][kept], rank[kept]
    cells[cell, rank + 1] = point.to(cells.dtype)
    cells[:, 0] = torch.bincount(cell, minlength=len(cells)).to(cells.dtype)
    values = pts_feature.to(compute_dtype(pts_feature))[point]
    pooled = pooled_features.flatten(0, 3)
    if pool_method == _MAX:
        _max_forward(values, cell, point, pooled, argmax.flatten(0, 3))
        return
    sums = values.new_zeros(pooled.shape).index_add_(0, cell, values)
    number = cells[:, :1]
    pooled.copy_(torch.where(number > 0, sums / number.clamp(min=1), pooled))


@mmcv_op
def roiaware_pool3d_backward(
    pts_idx_of_voxels: Tensor, argmax: Tensor, grad_out: Tensor, grad_in: Tensor, pool_method: int
) -> None:
    """Add the gradient of :func:`roiaware_pool3d_forward` to ``grad_in`` (P, C)."""
    if grad_out.numel() == 0 or grad_in.numel() == 0:
        return
    flow = grad_out.to(compute_dtype(grad_out)).flatten(0, 3)
    total = torch.zeros_like(grad_in, dtype=flow.dtype)
    if pool_method == _MAX:
        best = argmax.flatten(0, 3).long()
        total.scatter_add_(0, best.clamp(min=0), flow * (best >= 0))
    else:
        cells = pts_idx_of_voxels.flatten(0, 3).long()
        number = cells[:, :1]
        used = torch.arange(cells.size(1) - 1, device=cells.device) < number
        cell, slot = used.nonzero(as_tuple=True)
        total.index_add_(0, cells[cell, slot + 1], (flow / number.clamp(min=1))[cell])
    grad_in += total


def _cells(rois: Tensor, points: Tensor, size: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """Box, point and flat cell of each point in a box, in order of boxes and points: int64."""
    box, point = inside_boxes(rois[None], points[None])[0].nonzero(as_tuple=True)
    position = torch.stack(positions_in_boxes(rois[box], points[point]), 1)
    sides = rois[box, 3:6].to(position.dtype)
    count = torch.tensor(size, device=rois.device)
    cell = ((position + sides / 2) / (sides / count)).long()
    cell = torch.minimum(cell.clamp(min=0), count - 1)
    return box, point, (cell[:, 0] * size[1] + cell[:, 1]) * size[2] + cell[:, 2]


def _max_forward(values: Tensor, cell: Tensor, point: Tensor, pooled: Tensor, argmax: Tensor) -> None:
    index, values = cell[:, None].expand_as(values), values.masked_fill(values.isnan(), -torch.inf)
    highest = torch.full(pooled.shape, -torch.inf, dtype=values.dtype, device=values.device)
    highest.scatter_reduce_(0, index, values, 'amax')
    none = torch.iinfo(torch.int64).max
    # the first point that has the maximum; NaN, like -Inf, is none
    candidates = torch.where((values == highest[cell]) & (values > -torch.inf), point[:, None], none)
    best = torch.full(pooled.shape, none, device=values.device).scatter_reduce_(0, index, candidates, 'amin')
    pooled.copy_(torch.where(best < none, highest, pooled))
    argmax.copy_(torch.where(best < none, best, -1))
