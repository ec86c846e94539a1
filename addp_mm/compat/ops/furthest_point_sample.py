# Copyright (c) addp_mm contributors. Apache-2.0.
"""Furthest point sampling (PointNet++, https://arxiv.org/abs/1706.02413)."""

from collections.abc import Callable

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op


@mmcv_op
def furthest_point_sampling_forward(
    points_tensor: Tensor, temp_tensor: Tensor, idx_tensor: Tensor, b: int, n: int, m: int
) -> None:
    """Pick points one after the other, each the furthest from those picked before.

    Args:
        points_tensor: (B, N, 3).
        temp_tensor: (B, N) large values; replaced by squared distances from the picked points.
        idx_tensor: (B, m) int32; filled in place, from point 0. The first of equally far points is
            picked.
        b: B.
        n: N.
        m: Points to pick.
    """
    points = points_tensor.to(compute_dtype(points_tensor))
    batch = torch.arange(len(points), device=points.device)
    _sample(lambda last: (points - points[batch, last][:, None]).square().sum(2), temp_tensor, idx_tensor)


@mmcv_op
def furthest_point_sampling_with_dist_forward(
    points_tensor: Tensor, temp_tensor: Tensor, idx_tensor: Tensor, b: int, n: int, m: int
) -> None:
    """As :func:`furthest_point_sampling_forward`, with given distances.

    Args:
        points_tensor: (B, N, N) squared distances.
        temp_tensor: (B, N) large values; replaced by distances from the picked points.
        idx_tensor: (B, m) int32; filled in place, from point 0.
        b: B.
        n: N.
        m: Points to pick.
    """
    distances = points_tensor.to(compute_dtype(points_tensor))
    batch = torch.arange(len(distances), device=distances.device)
    _sample(lambda last: distances[batch, last], temp_tensor, idx_tensor)


def _sample(distances_from: Callable[[Tensor], Tensor], nearest: Tensor, picked: Tensor) -> None:
    """Fill ``picked`` (B, m), given the distances (B, N) from points (B,)."""
    if picked.numel() == 0:
        return
    last = torch.zeros(len(picked), dtype=torch.long, device=picked.device)
    picked[:, 0] = 0
    for step in range(1, picked.size(1)):
        nearest.copy_(torch.fmin(nearest, distances_from(last).to(nearest.dtype)))  # NaN changes nothing
        last = nearest.argmax(1)
        picked[:, step] = last
