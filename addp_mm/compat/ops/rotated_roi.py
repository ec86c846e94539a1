# Copyright (c) addp_mm contributors. Apache-2.0.
"""Average pooling of rotated RoIs: RoIAlign on a grid that is turned around the center of a RoI."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .roi_grid import bilinear_corners, chunks
from .weighted_rows import RowGradient, images_of, pixel_rows, weighted_sums


class RotatedRoIs(NamedTuple):
    """K rotated RoIs on a map; all tensors (K,), in pixels of the map and radians."""

    image: Tensor  # int64
    center_y: Tensor
    center_x: Tensor
    height: Tensor
    width: Tensor
    angle: Tensor  # from x to -y

    @classmethod
    def read(cls, rois: Tensor, spatial_scale: float, aligned: bool, clockwise: bool) -> 'RotatedRoIs':
        """Read RoIs in pixels of the image.

        Args:
            rois: (K, 6): index in the batch, center x and y, width, height, angle.
            spatial_scale: Pixels of the map for one of the image.
            aligned: Whether to shift RoIs by half a pixel. Otherwise they are at least one pixel
                large.
            clockwise: Whether angles are from x to y.

        Raises:
            RuntimeError: A RoI has NaN or Inf, or, if ``aligned``, a negative size, as in mmcv.
        """
        if not bool(rois.isfinite().all()):
            raise RuntimeError('RoIAlignRotated: a RoI has NaN or Inf; the training has probably diverged')
        center_x, center_y, width, height = (rois[:, 1:5] * spatial_scale).unbind(1)
        if aligned:
            if bool((rois[:, 3:5] < 0).any()):
                raise RuntimeError('RoIAlignRotated: a RoI has a negative width or height')
            center_x, center_y = center_x - 0.5, center_y - 0.5
        else:
            width, height = width.clamp(min=1), height.clamp(min=1)
        angle = -rois[:, 5] if clockwise else rois[:, 5]
        return cls(rois[:, 0].long(), center_y, center_x, height, width, angle)

    def select(self, rows: Tensor) -> 'RotatedRoIs':
        """Some of the RoIs."""
        return RotatedRoIs(*(values[rows] for values in self))


def rotated_pool(features: Tensor, rois: RotatedRoIs, pooled: tuple[int, int], sampling_ratio: int) -> Tensor:
    """Average the sampling points of each bin.

    Args:
        features: (N, C, H, W).
        rois: K RoIs.
        pooled: Rows and columns of bins of a RoI.
        sampling_ratio: Points of a bin in each direction. 0: the size of the bin in pixels, rounded
            up.

    Returns:
        (K, C, *pooled); 0 for a RoI without points.
    """
    channels, height, width = features.shape[1:]
    pixels = pixel_rows(features)
    output = features.new_zeros(len(rois.image), *pooled, channels)
    for rows, index, weight in _samples(rois, pooled, (height, width), sampling_ratio, channels):
        output[rows] = weighted_sums(pixels, index, weight).view(-1, *pooled, channels)
    return output.permute(0, 3, 1, 2)


def rotated_pool_gradient(grad: Tensor, rois: RotatedRoIs, shape: torch.Size, sampling_ratio: int) -> Tensor:
    """Gradient of :func:`rotated_pool` for the features.

    Args:
        grad: (K, C, PH, PW) gradient of the output.
        rois: K RoIs.
        shape: N, C, H, W of the features.
        sampling_ratio: As in :func:`rotated_pool`.

    Returns:
        (N, C, H, W).
    """
    images, channels, height, width = shape
    pooled = (grad.size(2), grad.size(3))
    flow = grad.permute(0, 2, 3, 1).reshape(-1, channels)
    gradient = RowGradient(flow, images * height * width)
    bins = torch.arange(pooled[0] * pooled[1], device=grad.device)
    for rows, index, weight in _samples(rois, pooled, (height, width), sampling_ratio, channels):
        gradient.add((rows[:, None] * len(bins) + bins).flatten(), index, weight)
    return images_of(gradient.total(), shape)


def _samples(
    rois: RotatedRoIs, pooled: tuple[int, int], size: tuple[int, int], sampling_ratio: int, channels: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Pixels and weights of the bins of RoIs, in groups of as many points a bin.

    Yields:
        (k,) int64 RoIs; (k * PH * PW, S) int32 pixels of all images; (k * PH * PW, S) weights.
    """
    height, width = size
    for rows, grid in _grids(rois, pooled, sampling_ratio):
        samples = grid[0] * grid[1]
        for part in chunks(len(rows), pooled[0] * pooled[1] * max(samples * 4, channels)):
            some = rois.select(rows[part])
            y, x = _points(some, pooled, grid)
            index, weight = bilinear_corners(y, x, height, width)
            index = (index + (some.image * height * width).view(-1, 1, 1, 1, 1, 1)).int()
            yield rows[part], index.view(-1, samples * 4), weight.view(-1, samples * 4) / samples


def _grids(rois: RotatedRoIs, pooled: tuple[int, int], sampling_ratio: int) -> list[tuple[Tensor, tuple[int, int]]]:
    """RoIs of the same number of points of a bin: (k,) int64, and rows and columns of points."""
    if sampling_ratio > 0:
        everything = torch.arange(len(rois.image), device=rois.image.device)
        return [(everything, (sampling_ratio, sampling_ratio))]
    sizes = torch.stack([rois.height / pooled[0], rois.width / pooled[1]], 1).ceil().long()
    distinct, group = sizes.unique(dim=0, return_inverse=True)
    return [
        ((group == number).nonzero()[:, 0], (rows, columns))
        for number, (rows, columns) in enumerate(distinct.tolist())
        if rows > 0 and columns > 0
    ]


def _points(rois: RotatedRoIs, pooled: tuple[int, int], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Rows and columns of the points: two tensors (k, PH, PW, GH, GW)."""
    # the order of the operations is that of mmcv: points on the border of a map count or do not
    down = _axis(rois.height, pooled[0], grid[0])[:, :, None, :, None]
    right = _axis(rois.width, pooled[1], grid[1])[:, None, :, None, :]
    cos, sin, center_y, center_x = (
        values.view(-1, 1, 1, 1, 1) for values in (rois.angle.cos(), rois.angle.sin(), rois.center_y, rois.center_x)
    )
    return down * cos - right * sin + center_y, down * sin + right * cos + center_x


def _axis(extent: Tensor, bins: int, points: int) -> Tensor:
    """Positions of the points from the center on one axis: (k,) -> (k, bins, points)."""
    size = (extent / bins)[:, None]
    first = -extent[:, None] / 2 + torch.arange(bins, dtype=extent.dtype, device=extent.device) * size
    inner = (torch.arange(points, dtype=extent.dtype, device=extent.device) + 0.5) * size / points
    return first[:, :, None] + inner[:, None]
