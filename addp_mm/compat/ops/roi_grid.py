# Copyright (c) addp_mm contributors. Apache-2.0.
"""Sampling points of RoI operators, and bilinear reading and writing at those points."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 24


class RoIGrid(NamedTuple):
    """Sampling points of K RoIs with PH x PW bins of at most GH x GW points each."""

    y: Tensor  # (K, PH, GH) pixel rows
    x: Tensor  # (K, PW, GW) pixel columns
    valid: Tensor  # (K, GH, GW) bool: the points that the RoI has
    number: Tensor  # (K,) points of a bin
    height: Tensor  # (K,) of the RoI, in pixels of the feature map
    width: Tensor  # (K,)


def roi_grid(
    rois: Tensor, pooled_height: int, pooled_width: int, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> RoIGrid:
    """Compute sampling points as RoIAlign does (https://arxiv.org/abs/1703.06870).

    Args:
        rois: (K, 5): index in the batch, then x1, y1, x2, y2 in pixels of the image.
        pooled_height: Rows of bins of a RoI.
        pooled_width: Columns of bins of a RoI.
        spatial_scale: Pixels of the feature map for one of the image.
        sampling_ratio: Points of a bin in each direction. 0: the size of the bin in pixels, rounded
            up.
        aligned: Whether to shift RoIs by half a pixel. Otherwise RoIs are at least one pixel large.
    """
    start_x, start_y, end_x, end_y = (rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)).unbind(1)
    height, width = end_y - start_y, end_x - start_x
    if not aligned:
        height, width = height.clamp(min=1.0), width.clamp(min=1.0)
    y, valid_y = _axis(start_y, height, pooled_height, sampling_ratio)
    x, valid_x = _axis(start_x, width, pooled_width, sampling_ratio)
    count = (valid_y.sum(1) * valid_x.sum(1)).clamp(min=1).to(rois.dtype)
    return RoIGrid(y, x, valid_y[:, :, None] & valid_x[:, None, :], count, height, width)


def _axis(start: Tensor, extent: Tensor, pooled: int, sampling_ratio: int) -> tuple[Tensor, Tensor]:
    """Points along one axis: (K,), (K,) -> (K, pooled, G) positions and (K, G) validity."""
    bins = extent / pooled
    # a RoI with NaN has no points
    points = (
        torch.full_like(extent, sampling_ratio) if sampling_ratio > 0 else bins.ceil().nan_to_num(nan=0).clamp(min=0)
    )
    most = max(int(points.max()), 1)
    step = torch.arange(most, dtype=start.dtype, device=start.device)
    index = torch.arange(pooled, dtype=start.dtype, device=start.device)
    inner = (step + 0.5) * bins[:, None] / points.clamp(min=1)[:, None]
    return (start[:, None] + index * bins[:, None])[:, :, None] + inner[:, None], step < points[:, None]


def chunks(num_rois: int, elements_per_roi: int) -> Iterator[slice]:
    """Split the RoIs into slices whose sampled values fit into a fixed memory."""
    step = max(_CHUNK_ELEMENTS // max(elements_per_roi, 1), 1)
    return (slice(start, start + step) for start in range(0, num_rois, step))


def bilinear_corners(y: Tensor, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Find the four pixels around each point, as RoIAlign does.

    Points up to one pixel outside the map are treated as points on its edge.

    Args:
        y: Rows in pixels, any shape.
        x: Columns in pixels, the same shape.
        height: Rows of the map.
        width: Columns of the map.

    Returns:
        (..., 4) int64 index into the flattened map in the order (low, low), (low, high),
        (high, low), (high, high) of (row, column), and (..., 4) weights, 0 outside.
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y = torch.where(inside, y, 0).clamp(0, height - 1)
    x = torch.where(inside, x, 0).clamp(0, width - 1)
    y_low, x_low = y.long(), x.long()
    y_high, x_high = (y_low + 1).clamp(max=height - 1), (x_low + 1).clamp(max=width - 1)
    below, right = y - y_low, x - x_low
    above, left = 1 - below, 1 - right
    rows, columns = (y_low, y_low, y_high, y_high), (x_low, x_high, x_low, x_high)
    index = torch.stack([row * width + column for row, column in zip(rows, columns, strict=True)], dim=-1)
    weight = torch.stack([above * left, above * right, below * left, below * right], dim=-1)
    return index, weight * inside[..., None]
