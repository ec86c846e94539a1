# Copyright (c) addp_mm contributors. Apache-2.0.
"""Neighbours of points: the nearest ones, or those in a ball (PointNet++, arXiv 1706.02413)."""

import numpy as np
import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .roi_grid import chunks

_FAR = 1e10  # squared distance from which mmcv's k-nearest search finds nothing


@mmcv_op
def chamfer_distance_forward(
    xyz1: Tensor, xyz2: Tensor, dist1: Tensor, dist2: Tensor, idx1: Tensor, idx2: Tensor
) -> None:
    """Find the nearest point of the other set for each point of two sets.

    Args:
        xyz1: (B, N, 2).
        xyz2: (B, M, 2).
        dist1: (B, N); filled in place with squared distances.
        dist2: (B, M); filled in place.
        idx1: (B, N) int32; filled with indices into ``xyz2``, the first of equally near ones.
        idx2: (B, M) int32; filled with indices into ``xyz1``.
    """
    for points, others, distance, index in ((xyz1, xyz2, dist1, idx1), (xyz2, xyz1, dist2, idx2)):
        if points.numel() and others.numel():
            nearest, found = _nearest(points, others, 1)
            distance.copy_(nearest[..., 0])
            index.copy_(found[..., 0])


@mmcv_op
def chamfer_distance_backward(
    xyz1: Tensor,
    xyz2: Tensor,
    idx1: Tensor,
    idx2: Tensor,
    graddist1: Tensor,
    graddist2: Tensor,
    gradxyz1: Tensor,
    gradxyz2: Tensor,
) -> None:
    """Add the gradients of :func:`chamfer_distance_forward` to ``gradxyz1`` and ``gradxyz2``."""
    if not (xyz1.numel() and xyz2.numel()):
        return
    dtype = compute_dtype(xyz1, xyz2)
    sets = (xyz1, gradxyz1, xyz2, gradxyz2, idx1, graddist1), (xyz2, gradxyz2, xyz1, gradxyz1, idx2, graddist2)
    for points, by_point, others, by_other, index, flow in sets:
        index = index.long()[..., None].expand(*index.shape, points.size(2))
        pull = 2 * flow.to(dtype)[..., None] * (points.to(dtype) - others.to(dtype).gather(1, index))
        by_point += pull
        by_other -= torch.zeros_like(by_other, dtype=dtype).scatter_add_(1, index, pull)


@mmcv_op
def three_nn_forward(
    unknown_tensor: Tensor, known_tensor: Tensor, dist2_tensor: Tensor, idx_tensor: Tensor, b: int, n: int, m: int
) -> None:
    """Find the three nearest points, the first of equally near ones first.

    Args:
        unknown_tensor: (B, N, 3) points that ask.
        known_tensor: (B, M, 3) points to find.
        dist2_tensor: (B, N, 3); filled in place with squared distances, Inf if there are fewer
            than three points.
        idx_tensor: (B, N, 3) int32; filled in place, with 0 if there are fewer than three points.
        b: B.
        n: N.
        m: M.
    """
    distance, index = _nearest(unknown_tensor, known_tensor, 3)
    dist2_tensor.copy_(distance)
    idx_tensor.copy_(index)


@mmcv_op
def knn_forward(
    xyz_tensor: Tensor,
    new_xyz_tensor: Tensor,
    idx_tensor: Tensor,
    dist2_tensor: Tensor,
    b: int,
    n: int,
    m: int,
    nsample: int,
) -> None:
    """Find the nearest points, the nearest first. The order of equally near ones is not defined.

    Args:
        xyz_tensor: (B, N, 3) points to find.
        new_xyz_tensor: (B, M, 3) points that ask.
        idx_tensor: (B, M, nsample) int32; filled in place, with 0 if there are too few points.
        dist2_tensor: (B, M, nsample); filled with squared distances, 1e10 if there are too few
            points.
        b: B.
        n: N.
        m: M.
        nsample: Points to find.
    """
    idx_tensor.zero_()
    dist2_tensor.fill_(_FAR)
    number = min(nsample, xyz_tensor.size(1))
    if number == 0:
        return
    for part in chunks(new_xyz_tensor.size(1), len(xyz_tensor) * xyz_tensor.size(1)):
        distances = squared_distances(new_xyz_tensor[:, part], xyz_tensor)
        near, index = distances.topk(number, largest=False)
        found = near < _FAR
        dist2_tensor[:, part, :number] = torch.where(found, near, _FAR).to(dist2_tensor.dtype)
        idx_tensor[:, part, :number] = torch.where(found, index, 0).to(idx_tensor.dtype)


@mmcv_op
def ball_query_forward(
    new_xyz_tensor: Tensor,
    xyz_tensor: Tensor,
    idx_tensor: Tensor,
    b: int,
    n: int,
    m: int,
    min_radius: float,
    max_radius: float,
    nsample: int,
) -> None:
    """Find the first points between two spheres, or at their centre.

    Args:
        new_xyz_tensor: (B, M, 3) centres.
        xyz_tensor: (B, N, 3) points to find.
        idx_tensor: (B, M, nsample) int32; filled in place. If there are too few points, the first
            one is repeated; if there is none, the values stay.
        b: B.
        n: N.
        m: M.
        min_radius: Radius of the inner sphere, inclusive.
        max_radius: Radius of the outer sphere, exclusive.
        nsample: Points to find.
    """
    low, high = (float(np.float32(radius) * np.float32(radius)) for radius in (min_radius, max_radius))
    for part in chunks(new_xyz_tensor.size(1), len(xyz_tensor) * xyz_tensor.size(1)):
        distances = squared_distances(new_xyz_tensor[:, part], xyz_tensor)
        inside = (distances == 0) | ((distances >= low) & (distances < high))
        _fill_with_first(idx_tensor[:, part], inside)


@mmcv_op
def stack_ball_query_forward(
    new_xyz_tensor: Tensor,
    new_xyz_batch_cnt: Tensor,
    xyz_tensor: Tensor,
    xyz_batch_cnt: Tensor,
    idx_tensor: Tensor,
    max_radius: float,
    nsample: int,
) -> None:
    """As :func:`ball_query_forward`, for scenes with different numbers of points.

    Args:
        new_xyz_tensor: (M1 + M2 + ..., 3) centres of all scenes.
        new_xyz_batch_cnt: (B,) M1, M2, ...
        xyz_tensor: (N1 + N2 + ..., 3) points of all scenes.
        xyz_batch_cnt: (B,) N1, N2, ...
        idx_tensor: (M1 + M2 + ..., nsample) int32; filled in place with indices into the points of
            the scene. The first index is -1 if there is none.
        max_radius: Radius of the sphere, exclusive.
        nsample: Points to find.
    """
    limit = float(np.float32(max_radius) * np.float32(max_radius))
    centres, points = (
        tensor.split(count.tolist())
        for tensor, count in ((new_xyz_tensor, new_xyz_batch_cnt), (xyz_tensor, xyz_batch_cnt))
    )
    start = 0
    for new, known in zip(centres, points, strict=True):
        for part in chunks(len(new), len(known)):
            rows = idx_tensor[start : start + len(new)][part]
            inside = squared_distances(new[None, part], known[None])[0] < limit
            _fill_with_first(rows, inside)
            rows[:, 0] = torch.where(inside.any(1), rows[:, 0], -1)
        start += len(new)


def squared_distances(points: Tensor, others: Tensor) -> Tensor:
    """(B, M, D), (B, N, D) -> (B, M, N), in float32 at least."""
    dtype = compute_dtype(points, others)
    columns = zip(points.to(dtype).unbind(2), others.to(dtype).unbind(2), strict=True)
    squares = [(here[:, :, None] - there[:, None]) ** 2 for here, there in columns]
    return sum(squares[1:], squares[0])


def first_of(inside: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Positions of the first marks of each row.

    Args:
        inside: (..., N) bool.
        count: How many.

    Returns:
        (..., count) int64, N where there are too few; and (...) their number, at most ``count``.
    """
    total = inside.size(-1)
    position = torch.arange(total, device=inside.device)
    position = torch.where(inside, position, total)
    found = position.topk(min(count, total), dim=-1, largest=False)[0]
    missing = found.new_full((*found.shape[:-1], count - found.size(-1)), total)
    found = torch.cat([found, missing], dim=-1)
    return found, (found < total).sum(-1)


def ranks_of_sorted(values: Tensor) -> Tensor:
    """Count the equal values before each value of a sorted tensor: (S,) -> (S,) int64."""
    return torch.arange(len(values), device=values.device) - torch.searchsorted(values, values)


def _fill_with_first(index: Tensor, inside: Tensor) -> None:
    """Write the first marks of ``inside`` (..., N) to ``index`` (..., S), repeating the first."""
    if inside.size(-1) == 0:
        return
    found, number = first_of(inside, index.size(-1))
    found = torch.where(found < inside.size(-1), found, found[..., :1])
    index.copy_(torch.where(number[..., None] > 0, found, index).to(index.dtype))


def _nearest(points: Tensor, others: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Squared distances and indices (B, M, number) of the nearest others, the first of equal ones.

    Inf and 0 where there are not as many. A distance of NaN is none.
    """
    batch, count = points.shape[:2]
    distance = torch.full((batch, count, number), torch.inf, dtype=compute_dtype(points), device=points.device)
    index = torch.zeros(batch, count, number, dtype=torch.long, device=points.device)
    for part in chunks(count, batch * others.size(1)):
        between = squared_distances(points[:, part], others)
        between.masked_fill_(between.isnan(), torch.inf)
        for rank in range(min(number, others.size(1))):
            near, found = between.min(2)
            distance[:, part, rank], index[:, part, rank] = near, found * (near < torch.inf)
            between.scatter_(2, found[..., None], torch.inf)
    return distance, index
