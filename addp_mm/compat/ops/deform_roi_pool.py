# Copyright (c) addp_mm contributors. Apache-2.0.
"""Deformable RoI pooling (Dai et al., https://arxiv.org/abs/1703.06211)."""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .roi_grid import RoIGrid, bilinear_corners, chunks, roi_grid
from .weighted_rows import RowGradient, gradient_of_weights, images_of, pixel_rows, weighted_sums


@mmcv_op
def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Average-pool the bins of each RoI, each shifted by its own offset.

    Args:
        input: (N, C, H, W) features.
        rois: (K, 5): index in the batch, then x1, y1, x2, y2 in pixels of the image.
        offset: (K, 2, pooled_height, pooled_width): x and y as fractions of the RoI, or
            empty for none.
        output: (K, C, pooled_height, pooled_width); filled in place.
        pooled_height: Rows of bins of a RoI.
        pooled_width: Columns of bins of a RoI.
        spatial_scale: Pixels of the feature map for one of the image.
        sampling_ratio: Sampling points of a bin in each direction. 0: the size of the bin in
            pixels, rounded up.
        gamma: Factor on ``offset``.
    """
    if output.numel() == 0:
        return
    features, boxes, shift = (t.to(compute_dtype(input)) for t in (input, rois, offset))
    height, width = features.shape[2:]
    pixels = pixel_rows(features)
    grid = roi_grid(boxes, pooled_height, pooled_width, spatial_scale, sampling_ratio, aligned=True)
    for part in chunks(len(rois), _elements(grid, output)):
        y, x, weight = _points(grid, part, shift, gamma)
        index, corner = bilinear_corners(y, x, height, width)
        index = (index + _image_start(boxes[part], height * width)).flatten(0, 2).flatten(1)
        pooled = weighted_sums(pixels, index, (corner * weight[..., None]).flatten(0, 2).flatten(1))
        output[part] = pooled.view(*y.shape[:3], -1).permute(0, 3, 1, 2).to(output.dtype)


@mmcv_op
def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Add the gradients of the forward pass to ``grad_input`` and ``grad_offset``."""
    if grad_output.numel() == 0:
        return
    dtype = compute_dtype(input)
    grad, features, boxes, shift = (t.to(dtype) for t in (grad_output, input, rois, offset))
    height, width = features.shape[2:]
    pixels = pixel_rows(features)
    flows = pixel_rows(grad)  # (K * PH * PW, C)
    gradient, sums = RowGradient(flows, len(pixels)), torch.arange(len(flows), device=grad.device).view(len(rois), -1)
    grid = roi_grid(boxes, pooled_height, pooled_width, spatial_scale, sampling_ratio, aligned=True)
    for part in chunks(len(rois), _elements(grid, grad_output)):
        y, x, weight = _points(grid, part, shift, gamma)
        index, corner = bilinear_corners(y, x, height, width)
        index = index + _image_start(boxes[part], height * width)
        index = index.flatten(0, 2).flatten(1)
        some = sums[part].flatten()
        gradient.add(some, index, (corner * weight[..., None]).flatten(0, 2).flatten(1))
        if shift.numel():
            by_corner = gradient_of_weights(flows[some], pixels, index).view(corner.shape)
            inside = corner.sum(-1) > 0
            slopes = _slopes(by_corner, y, x, height, width)
            for axis, extent in enumerate((grid.width, grid.height)):
                moved = (weight * slopes[axis] * inside).sum((-2, -1)) * gamma * extent[part, None, None]
                grad_offset[part, axis] += moved.to(grad_offset.dtype)
    grad_input += images_of(gradient.total(), features.shape)


def _elements(grid: RoIGrid, output: Tensor) -> int:
    """Numbers in memory for a RoI, for a channel at least."""
    return output[0, 0].numel() * max(grid.valid[0].numel() * 4, output.size(1))


def _points(grid: RoIGrid, part: slice, shift: Tensor, gamma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and columns of shifted points (k, PH, PW, GH, GW); weights (k, 1, 1, GH, GW)."""
    y, x = grid.y[part][:, :, None, :, None], grid.x[part][:, None, :, None, :]
    if shift.numel():
        y = y + (gamma * grid.height[part, None, None] * shift[part, 1])[..., None, None]
        x = x + (gamma * grid.width[part, None, None] * shift[part, 0])[..., None, None]
    y, x = torch.broadcast_tensors(y, x)
    return y, x, grid.valid[part][:, None, None] / grid.number[part].view(-1, 1, 1, 1, 1)


def _image_start(rois: Tensor, pixels: int) -> Tensor:
    return (rois[:, 0].long() * pixels).view(-1, 1, 1, 1, 1, 1)


def _slopes(corners: Tensor, y: Tensor, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Derivatives for x and y as in mmcv's kernel, which extrapolates the border.

    Args:
        corners: (..., 4) gradients of the weights of the corners.
        y: (...) rows of the points.
        x: (...) columns of the points.
        height: Rows of the map.
        width: Columns of the map.
    """
    y_low, x_low = y.clamp(0, height - 1).floor(), x.clamp(0, width - 1).floor()
    y_high, x_high = (y_low + 1).clamp(max=height - 1), (x_low + 1).clamp(max=width - 1)
    low_low, low_high, high_low, high_high = corners.unbind(-1)
    by_x = (high_high - high_low) * (y - y_low) + (low_high - low_low) * (y_high - y)
    by_y = (high_high - low_high) * (x - x_low) + (high_low - low_low) * (x_high - x)
    return by_x, by_y
