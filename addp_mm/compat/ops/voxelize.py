# Copyright (c) addp_mm contributors. Apache-2.0.
"""Voxels of points (Zhou et al., VoxelNet, https://arxiv.org/abs/1711.06396)."""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .point_neighbours import ranks_of_sorted

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
    places = _voxels(points, voxel_size, coors_range, NDim)
    inside = (places[:, 0] >= 0).nonzero()[:, 0]
    found, voxel = torch.unique(places[inside], dim=0, return_inverse=True)
    first = torch.full((len(found),), len(points), device=points.device)
    first.scatter_reduce_(0, voxel, inside, 'amin')
    by_first = first.argsort()[:max_voxels]
    number = torch.full_like(first, -1)
    number[by_first] = torch.arange(len(by_first), device=points.device)
    number, order = number[voxel].sort(stable=True)
    rank = ranks_of_sorted(number)
    kept = (number >= 0) & (rank < max_points)
    number, rank = number[kept], rank[kept]
    voxels[number, rank] = points[inside[order][kept]]
    coors[: len(by_first)] = found[by_first].to(coors.dtype)
    num_points_per_voxel[: len(by_first)] = torch.bincount(number, minlength=len(by_first)).to(
        num_points_per_voxel.dtype
    )
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
    if len(feats) == 0:
        none = coors.new_empty(0, dtype=torch.int32)
        return feats.clone(), coors.clone(), none, none.clone()
    marked = coors.masked_fill((coors < 0).any(1, keepdim=True), -1)
    voxels, voxel, number = torch.unique(marked, dim=0, return_inverse=True, return_counts=True)
    if bool(voxels[0, 0] < 0):
        voxels, voxel, number = voxels[1:], voxel - 1, number[1:]
    inside = voxel >= 0
    values = feats.to(compute_dtype(feats))[inside]
    index = voxel[inside, None].expand_as(values)
    reduced = values.new_zeros(len(voxels), feats.size(1))
    reduced.scatter_reduce_(0, index, values, _REDUCTIONS[reduce_type], include_self=False)
    return reduced.to(feats.dtype), voxels, voxel.int(), number.int()


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
    place = ((points[:, :dims].to(dtype) - low) / size).floor()
    inside = ((place >= 0) & (place < count)).all(1, keepdim=True)
    return torch.where(inside, place, -1).long().flip(1)
