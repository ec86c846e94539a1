# Copyright (c) addp_mm contributors. Apache-2.0.
"""Voxels of points (Zhou et al., VoxelNet, https://arxiv.org/abs/1711.06396)."""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op

_LARGEST_KEY = torch.iinfo(torch.int64).max
_REDUCTIONS = {'max': 'amax', 'sum': 'sum', 'mean': 'mean'}


@mmcv_op
def dynamic_voxelize_forward(
    points: Tensor, voxel_size: Tensor, coors_range: Tensor, coors: Tensor, NDim: int = 3
) -> None:
    """Find the voxel of each point.

    Args:
        points: (N, C); the first values are x, y, z.
        voxel_size: (NDim,) sizes in x, y, z.
        coors_range: (2 * NDim,) lowest, then highest x, y, z.
        coors: (N, NDim) int32; filled in place with z, y, x of the voxel, -1 outside the range.
        NDim: 3.
    """
    coors.copy_(_voxels(points, voxel_size, coors_range, NDim))


@mmcv_op
def hard_voxelize_forward(
    points: Tensor,
    voxel_size: Tensor,
    coors_range: Tensor,
    voxels: Tensor,
    coors: Tensor,
    num_points_per_voxel: Tensor,
    voxel_num: Tensor,
    max_points: int,
    max_voxels: int,
    NDim: int = 3,
    deterministic: bool = True,
) -> None:
    """Sort points into a limited number of voxels.

    Voxels have the order of their first points. Points of further voxels, and further points of a
    voxel, are left out.

    Args:
        points: (N, C); the first values are x, y, z.
        voxel_size: (NDim,) sizes in x, y, z.
        coors_range: (2 * NDim,) lowest, then highest x, y, z.
        voxels: (max_voxels, max_points, C) zeros; filled in place.
        coors: (max_voxels, NDim) int32; filled in place with z, y, x.
        num_points_per_voxel: (max_voxels,) int32; filled in place.
        voxel_num: () int64; filled in place with the number of voxels.
        max_points: Points of a voxel.
        max_voxels: Voxels.
        NDim: 3.
        deterministic: Not used; the result is always the same.
    """
    position = _voxels(points, voxel_size, coors_range, NDim)
    inside = (position[:, 0] >= 0).nonzero()[:, 0]
    order, voxel, count = _sorted_by_voxel(position[inside])
    order = inside[order]
    start = count.cumsum(0) - count
    by_first = order[start].argsort()[:max_voxels]
    number = torch.full_like(start, -1)
    number[by_first] = torch.arange(len(by_first), device=points.device)
    number, rank = number[voxel], torch.arange(len(order), device=points.device) - start[voxel]
    kept = (number >= 0) & (rank < max_points)
    voxels[number[kept], rank[kept]] = points[order[kept]]
    coors[: len(by_first)] = position[order[start[by_first]]].to(coors.dtype)
    num_points_per_voxel[: len(by_first)] = count[by_first].clamp(max=max_points).to(num_points_per_voxel.dtype)
    voxel_num.fill_(len(by_first))


@mmcv_op
def dynamic_point_to_voxel_forward(
    feats: Tensor, coors: Tensor, reduce_type: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reduce the features of the points of each voxel.

    Args:
        feats: (N, C).
        coors: (N, D) integers; a point with a negative one belongs to no voxel.
        reduce_type: 'max', 'sum' or 'mean'.

    Returns:
        (M, C) features, (M, D) sorted voxels, (N,) int32 voxel of each point, -1 for none, and (M,)
        int32 number of points.
    """
    inside = (coors >= 0).all(1).nonzero()[:, 0]
    order, voxel, count = _sorted_by_voxel(coors[inside])
    order = inside[order]
    voxels = coors[order[count.cumsum(0) - count]]
    voxel_of_point = torch.full((len(feats),), -1, dtype=torch.int32, device=feats.device)
    voxel_of_point[order] = voxel.int()
    values = feats.to(compute_dtype(feats))[order]
    reduced = values.new_zeros(len(voxels), feats.size(1))
    index = voxel[:, None].expand_as(values)
    reduced.scatter_reduce_(0, index, values, _REDUCTIONS[reduce_type], include_self=False)
    return reduced.to(feats.dtype), voxels, voxel_of_point, count.int()


@mmcv_op
def dynamic_point_to_voxel_backward(
    grad_feats: Tensor,
    grad_reduced_feats: Tensor,
    feats: Tensor,
    reduced_feats: Tensor,
    coors_idx: Tensor,
    reduce_count: Tensor,
    reduce_type: str,
) -> None:
    """Write the gradient of the forward pass to ``grad_feats`` (N, C).

    The gradient of a maximum goes to the first point that has it.
    """
    grad_feats.zero_()
    if feats.numel() == 0 or reduced_feats.numel() == 0:
        return
    inside = coors_idx >= 0
    voxel = coors_idx[inside].long()
    flow = grad_reduced_feats[voxel]
    if reduce_type == 'mean':
        flow = flow / reduce_count[voxel, None].to(flow.dtype)
    elif reduce_type == 'max':
        point = torch.arange(len(voxel), device=feats.device)[:, None]
        has_it = feats[inside] == reduced_feats[voxel]
        first = torch.full(reduced_feats.shape, len(voxel), device=feats.device)
        first.scatter_reduce_(0, voxel[:, None].expand_as(flow), torch.where(has_it, point, len(voxel)), 'amin')
        flow = flow * (first[voxel] == point)
    grad_feats[inside] = flow


def _voxels(points: Tensor, voxel_size: Tensor, coors_range: Tensor, dims: int) -> Tensor:
    """(N, dims) int64 z, y, x of voxels; -1 outside the range."""
    dtype, device = compute_dtype(points), points.device
    size, low, high = (t.float().to(device) for t in (voxel_size, coors_range[:dims], coors_range[dims:]))
    count = ((high - low) / size + 0.5).floor()
    position = ((points[:, :dims].to(dtype) - low) / size).floor()
    inside = ((position >= 0) & (position < count)).all(1, keepdim=True)
    return torch.where(inside, position, -1).long().flip(1)


def _sorted_by_voxel(voxels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sort points by their voxels (N, D), which are not negative.

    Returns:
        (N,) int64 order of the points, stable; (N,) int64 number of the voxel of each sorted point;
        (M,) int64 points of each voxel.
    """
    key, order = _keys(voxels).sort(stable=True)
    _, voxel, count = key.unique_consecutive(return_inverse=True, return_counts=True)
    return order, voxel, count


def _keys(voxels: Tensor) -> Tensor:
    """One int64 for each voxel, in the same order, because rows of a tensor sort slowly."""
    if len(voxels) == 0:
        return voxels.new_empty(0, dtype=torch.long)
    key, number = torch.zeros(len(voxels), dtype=torch.long, device=voxels.device), 1
    for column, largest in zip(voxels.long().unbind(1), voxels.amax(0).tolist(), strict=True):
        size = largest + 1
        if number * size > _LARGEST_KEY:
            (key, number), (column, size) = _ranks(key), _ranks(column)
        key, number = key * size + column, number * size
    return key


def _ranks(values: Tensor) -> tuple[Tensor, int]:
    """Rank of each value among the distinct ones, and the number of these."""
    distinct, rank = values.unique(return_inverse=True)
    return rank, len(distinct)
