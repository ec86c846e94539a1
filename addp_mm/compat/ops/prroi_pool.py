# Copyright (c) addp_mm contributors. Apache-2.0.
"""Precise RoI pooling (Jiang et al., IoU-Net, https://arxiv.org/abs/1807.11590).

A bin's value is the mean of the bilinearly interpolated map. Its integral is a weighted sum of
pixels; each weight is the product of one for the row and one for the column.
"""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .roi_grid import chunks
from .weighted_rows import gradient_of_rows, gradient_of_weights, images_of, pixel_rows, weighted_sums


@mmcv_op
def prroi_pool_forward(
    input: Tensor, rois: Tensor, output: Tensor, pooled_height: int, pooled_width: int, spatial_scale: float
) -> None:
    """Average the features of each bin of each RoI, exactly.

    Args:
        input: (N, C, H, W) features, zero outside.
        rois: (K, 5): index in the batch, then x1, y1, x2, y2 in pixels of the image.
        output: (K, C, pooled_height, pooled_width); filled in place, with 0 for RoIs without
            area.
        pooled_height: Rows of bins of a RoI.
        pooled_width: Columns of bins of a RoI.
        spatial_scale: Pixels of the feature map for one of the image.
    """
    if output.numel() == 0:
        return
    dtype = compute_dtype(input)
    rows, boxes, channels = pixel_rows(input.to(dtype)), rois.to(dtype), input.size(1)
    bins = pooled_height, pooled_width
    for part in chunks(len(rois), _elements(boxes, bins, spatial_scale, input.shape)):
        pooled = weighted_sums(rows, *_samples(boxes[part], bins, spatial_scale, input.shape))
        output[part] = pooled.view(-1, *bins, channels).permute(0, 3, 1, 2).to(output.dtype)


@mmcv_op
def prroi_pool_backward(
    grad_output: Tensor, rois: Tensor, grad_input: Tensor, pooled_height: int, pooled_width: int, spatial_scale: float
) -> None:
    """Add the gradient of :func:`prroi_pool_forward` to ``grad_input`` (N, C, H, W)."""
    if grad_output.numel() == 0:
        return
    dtype, shape, bins = compute_dtype(grad_output), grad_input.shape, (pooled_height, pooled_width)
    boxes, pixels = rois.to(dtype), shape[0] * shape[2] * shape[3]
    for part in chunks(len(rois), _elements(boxes, bins, spatial_scale, shape)):
        flow = grad_output[part].to(dtype).permute(0, 2, 3, 1).reshape(-1, shape[1])
        index, weight = _samples(boxes[part], bins, spatial_scale, shape)
        grad_input += images_of(gradient_of_rows(flow, index, weight, pixels), shape)


@mmcv_op
def prroi_pool_coor_backward(
    output: Tensor,
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    grad_rois: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add the gradient of :func:`prroi_pool_forward` for the boxes to ``grad_rois`` (K, 5)."""
    if grad_output.numel() == 0:
        return
    dtype, bins = compute_dtype(input), (pooled_height, pooled_width)
    rows, boxes, channels = pixel_rows(input.to(dtype)), rois.to(dtype), input.size(1)
    for part in chunks(len(rois), _elements(boxes, bins, spatial_scale, input.shape)):
        flow = grad_output[part].to(dtype).permute(0, 2, 3, 1).reshape(-1, channels)
        moved = boxes[part].clone().requires_grad_()
        with torch.enable_grad():
            index, weight = _samples(moved, bins, spatial_scale, input.shape)
        by_weight = gradient_of_weights(flow, rows, index)
        grad_rois[part, 1:] += torch.autograd.grad(weight, moved, by_weight)[0][:, 1:].to(grad_rois.dtype)


def _elements(rois: Tensor, bins: tuple[int, int], scale: float, shape: torch.Size) -> int:
    """Numbers in memory for a RoI."""
    sizes = (rois[:, 3:] - rois[:, 1:3]) * scale
    side = [
        _window(size.max() / count, limit)
        for size, count, limit in zip(sizes.unbind(1), bins[::-1], shape[:1:-1], strict=True)
    ]
    return bins[0] * bins[1] * max(side[0] * side[1], shape[1])


def _window(largest: Tensor, limit: int) -> int:
    """Pixels along one axis that a bin of a size can reach, in a map of ``limit`` pixels."""
    return int(largest.nan_to_num(nan=0).clamp(0, limit).ceil()) + 2


def _samples(rois: Tensor, bins: tuple[int, int], scale: float, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Pixels (S, P) that the S bins of RoIs sum, and their weights, with gradients for ``rois``."""
    height, width = shape[2:]
    corners = rois[:, 1:] * scale
    row, by_row = _axis(corners[:, 1], corners[:, 3], bins[0], height)  # (k, PH, GH)
    column, by_column = _axis(corners[:, 0], corners[:, 2], bins[1], width)
    start = rois[:, 0].detach().long() * height * width
    index = start.view(-1, 1, 1, 1, 1) + row[:, :, None, :, None] * width + column[:, None, :, None, :]
    weight = by_row[:, :, None, :, None] * by_column[:, None, :, None, :]
    return index.flatten(3).flatten(0, 2), weight.flatten(3).flatten(0, 2)


def _axis(start: Tensor, end: Tensor, bins: int, limit: int) -> tuple[Tensor, Tensor]:
    """Pixels along one axis and their weights.

    Args:
        start: (k,) of RoIs, in pixels of the feature map.
        end: (k,)
        bins: Bins of a RoI.
        limit: Pixels of the map.

    Returns:
        (k, bins, G) int64 pixels and weights, whose sum is at most 1.
    """
    size = (end - start).clamp(min=0) / bins
    low = start[:, None] + size[:, None] * torch.arange(bins, device=start.device)
    high = low + size[:, None]
    # a bin that begins outside the map is only read from the pixel before the first one
    first = low.detach().nan_to_num(nan=0).clamp(-1, limit).floor().long()
    pixel = first[..., None] + torch.arange(_window(size.detach().max(), limit + 1), device=start.device)
    area = _under_hat(high[..., None] - pixel, low[..., None] - pixel)
    exists = (pixel >= 0) & (pixel < limit) & (size > 0)[:, None, None]
    weight = torch.where(exists, area / torch.where(size > 0, size, 1)[:, None, None], 0)
    return pixel.clamp(0, limit - 1), weight


def _under_hat(high: Tensor, low: Tensor) -> Tensor:
    """Integral of max(0, 1 - abs(t)) from ``low`` to ``high``."""
    high, low = high.clamp(-1, 1), low.clamp(-1, 1)
    return high - low - (high * high.abs() - low * low.abs()) / 2
