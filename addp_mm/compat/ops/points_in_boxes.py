# Copyright (c) addp_mm contributors. Apache-2.0.
"""Points in upright 3-D boxes, and pooling of their features."""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .point_neighbours import first_of
from .roi_grid import chunks

_NUMBERS_OF_PAIR = 8  # in memory for a point and a box


@mmcv_op
def points_in_boxes_part_forward(boxes_tensor: Tensor, pts_tensor: Tensor, box_idx_of_points_tensor: Tensor) -> None:
    """Find the first box of each point.

    Args:
        boxes_tensor: (B, T, 7): x, y, z of the centre of the bottom, sizes in x, y and z, and the
            angle in radians, from x to y.
        pts_tensor: (B, M, 3).
        box_idx_of_points_tensor: (B, M) int32; filled in place; stays as it is where a point is in
            no box.
    """
    if boxes_tensor.size(1) == 0:
        return
    for part in chunks(pts_tensor.size(1), len(boxes_tensor) * boxes_tensor.size(1)):
        found, first = inside_boxes(boxes_tensor, pts_tensor[:, part]).max(1)  # the first of equal ones
        index = box_idx_of_points_tensor[:, part]
        index.copy_(torch.where(found, first, index))


@mmcv_op
def points_in_boxes_all_forward(boxes_tensor: Tensor, pts_tensor: Tensor, box_idx_of_points_tensor: Tensor) -> None:
    """Fill (B, M, T) int32 with 1 for each point in each box, and 0 for others.

    Args:
        boxes_tensor: (B, T, 7), as in :func:`points_in_boxes_part_forward`.
        pts_tensor: (B, M, 3).
        box_idx_of_points_tensor: (B, M, T) int32; filled in place.
    """
    box_idx_of_points_tensor.copy_(inside_boxes(boxes_tensor, pts_tensor).transpose(1, 2))


@mmcv_op
def points_in_boxes_cpu_forward(boxes_tensor: Tensor, pts_tensor: Tensor, pts_indices_tensor: Tensor) -> None:
    """As :func:`points_in_boxes_all_forward` for one scene: (T, 7), (M, 3), (T, M)."""
    pts_indices_tensor.copy_(inside_boxes(boxes_tensor[None], pts_tensor[None])[0])


@mmcv_op
def roipoint_pool3d_forward(
    xyz: Tensor, boxes3d: Tensor, pts_feature: Tensor, pooled_features: Tensor, pooled_empty_flag: Tensor
) -> None:
    """Sample the first points in each box (Shi et al., PointRCNN, https://arxiv.org/abs/1812.04244).

    Args:
        xyz: (B, N, 3).
        boxes3d: (B, M, 7), as in :func:`points_in_boxes_part_forward`.
        pts_feature: (B, N, C).
        pooled_features: (B, M, S, 3 + C); filled in place with positions and features of S points,
            repeated from the first one if there are fewer; stays as it is for empty boxes.
        pooled_empty_flag: (B, M) int32; set to 1 for empty boxes.
    """
    samples = pooled_features.size(2)
    if pooled_features.numel() == 0:
        return
    if xyz.size(1) == 0:
        pooled_empty_flag.fill_(1)
        return
    batch = torch.arange(len(xyz), device=xyz.device).view(-1, 1, 1)
    for part in chunks(boxes3d.size(1), len(xyz) * max(xyz.size(1), pooled_features[0, 0].numel())):
        found, number = first_of(inside_boxes(boxes3d[:, part], xyz), samples)
        empty = number == 0
        pooled_empty_flag[:, part].masked_fill_(empty, 1)
        turn = torch.arange(samples, device=xyz.device) % number.clamp(min=1)[..., None]
        index = found.gather(2, turn).clamp(max=xyz.size(1) - 1)
        chosen = torch.cat([xyz[batch, index], pts_feature[batch, index]], dim=3)
        pooled = pooled_features[:, part]
        pooled.copy_(torch.where(empty[..., None, None], pooled, chosen))


def inside_boxes(boxes: Tensor, points: Tensor) -> Tensor:
    """Which points are in which boxes: (B, T, 7), (B, M, 3) -> (B, T, M) bool.

    The upper and the lower face belong to a box; the other ones do not.
    """
    inside = torch.empty(*boxes.shape[:2], points.size(1), dtype=torch.bool, device=points.device)
    for part in chunks(boxes.size(1), len(boxes) * points.size(1) * _NUMBERS_OF_PAIR):
        some = boxes[:, part, None]
        x, y, z = positions_in_boxes(some, points[:, None])
        half_x, half_y, half_z = (some[..., 3:6].to(x.dtype) / 2).unbind(-1)
        inside[:, part] = (x.abs() < half_x) & (y.abs() < half_y) & (z.abs() <= half_z)
    return inside


def positions_in_boxes(boxes: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions from the centres, along the sides: (..., 7), (..., 3) -> three tensors (...)."""
    dtype = compute_dtype(boxes, points)
    boxes, points = boxes.to(dtype), points.to(dtype)
    x, y = (points[..., axis] - boxes[..., axis] for axis in (0, 1))
    cos, sin = boxes[..., 6].cos(), boxes[..., 6].sin()
    return x * cos + y * sin, y * cos - x * sin, points[..., 2] - (boxes[..., 2] + boxes[..., 5] / 2)
