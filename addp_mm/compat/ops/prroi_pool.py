# Copyright (c) addp_mm contributors. Apache-2.0.
"""Precise RoI pooling (Jiang et al., IoU-Net, https://arxiv.org/abs/1807.11590).

A bin's value is the mean of the bilinearly interpolated map. Its integral is a weighted sum of
pixels; each weight is the product of one for the row and one for the column.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .roi_grid import chunks
from .weighted_rows import RowGradient, gradient_of_weights, images_of, pixel_rows, weighted_sums


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
    dtype, bins = compute_dtype(input), (pooled_height, pooled_width)
    rows, boxes, channels = pixel_rows(input.to(dtype)), rois.to(dtype), input.size(1)
    output.zero_()
    for some, window in _parts(boxes, bins, spatial_scale, input.shape):
        index, weight = _samples(boxes[some], bins, spatial_scale, input.shape, window)
        pooled = weighted_sums(rows, index.flatten(0, 1), weight.flatten(0, 1))
        output[some] = pooled.view(-1, *bins, channels).permute(0, 3, 1, 2).to(output.dtype)


@mmcv_op
def prroi_pool_backward(
    grad_output: Tensor, rois: Tensor, grad_input: Tensor, pooled_height: int, pooled_width: int, spatial_scale: float
) -> None:
    """Add the gradient of :func:`prroi_pool_forward` to ``grad_input`` (N, C, H, W)."""
    if grad_output.numel() == 0:
        return
    dtype, shape, bins = compute_dtype(grad_output), grad_input.shape, (pooled_height, pooled_width)
    boxes = rois.to(dtype)
    gradient = RowGradient(pixel_rows(grad_output.to(dtype)), shape[0] * shape[2] * shape[3])
    sums = torch.arange(len(rois) * bins[0] * bins[1], device=rois.device).view(len(rois), -1)
    for some, window in _parts(boxes, bins, spatial_scale, shape):
        index, weight = _samples(boxes[some], bins, spatial_scale, shape, window)
        gradient.add(sums[some].flatten(), index.flatten(0, 1), weight.flatten(0, 1))
    grad_input += images_of(gradient.total(), shape)


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
    rows, boxes = pixel_rows(input.to(dtype)), rois.to(dtype)
    flows = pixel_rows(grad_output.to(dtype)).view(len(rois), -1, input.size(1))
    for some, window in _parts(boxes, bins, spatial_scale, input.shape):
        moved = boxes[some].requires_grad_()
        with torch.enable_grad():
            index, weight = _samples(moved, bins, spatial_scale, input.shape, window)
        by_weight = gradient_of_weights(flows[some].flatten(0, 1), rows, index.flatten(0, 1)).view(weight.shape)
        grad_rois[some, 1:] += torch.autograd.grad(weight, moved, by_weight)[0][:, 1:].to(grad_rois.dtype)


def _parts(
    rois: Tensor, bins: tuple[int, int], scale: float, shape: torch.Size
) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """Split RoIs into groups of similar sizes; RoIs without area are in none.

    Yields:
        (k,) int64 RoIs; rows and columns of pixels that each of their bins can reach.
    """
    count, limit = (torch.tensor(pair, device=rois.device) for pair in (bins, (shape[2], shape[3])))
    sizes = (rois[:, [4, 3]] - rois[:, [2, 1]]) * scale / count
    windows = _rounded_up(torch.minimum(sizes.nan_to_num(nan=0).ceil(), limit + 1)).long() + 2
    exists = (sizes > 0).all(1)
    distinct, group = windows.unique(dim=0, return_inverse=True)
    for number, (rows, columns) in enumerate(distinct.tolist()):
        members = (exists & (group == number)).nonzero()[:, 0]
        for part in chunks(len(members), bins[0] * bins[1] * max(rows * columns, shape[1])):
            yield members[part], (rows, columns)


def _rounded_up(sizes: Tensor) -> Tensor:
    """Round to 1, 2, 3, 4, 6, 8, 12, 16, ..., so that few sizes differ."""
    sizes = sizes.clamp(min=1)
    step = (sizes.log2().floor() - 1).clamp(min=0).exp2()
    return (sizes / step).ceil() * step


def _samples(
    rois: Tensor, bins: tuple[int, int], scale: float, shape: torch.Size, window: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Pixels (k, S, P) that the S bins of RoIs sum; their weights, with gradients for ``rois``."""
    height, width = shape[2:]
    corners = rois[:, 1:] * scale
    row, by_row = _axis(corners[:, 1], corners[:, 3], bins[0], height, window[0])  # (k, PH, GH)
    column, by_column = _axis(corners[:, 0], corners[:, 2], bins[1], width, window[1])
    start = rois[:, 0].detach().long() * height * width
    index = start.view(-1, 1, 1, 1, 1) + row[:, :, None, :, None] * width + column[:, None, :, None, :]
    weight = by_row[:, :, None, :, None] * by_column[:, None, :, None, :]
    return index.flatten(3).flatten(1, 2), weight.flatten(3).flatten(1, 2)


def _axis(start: Tensor, end: Tensor, bins: int, limit: int, window: int) -> tuple[Tensor, Tensor]:
    """Pixels along one axis and their weights.

    Args:
        start: (k,) of RoIs, in pixels of the feature map.
        end: (k,), larger.
        bins: Bins of a RoI.
        limit: Pixels of the map.
        window: Pixels that a bin can reach, at least.

    Returns:
        (k, bins, window) int64 pixels and weights, whose sum is at most 1.
    """
    size = (end - start) / bins
    low = start[:, None] + size[:, None] * torch.arange(bins, device=start.device)
    high = low + size[:, None]
    # a bin that begins outside the map is only read from the pixel before the first one
    first, last = low.detach().clamp(-1, limit).floor().long(), high.detach().clamp(-1, limit).ceil().long()
    pixel = first[..., None] + torch.arange(window, device=start.device)
    area = _under_hat(high[..., None] - pixel, low[..., None] - pixel)
    exists = (pixel >= 0) & (pixel < limit)
    weight = torch.where(exists, area / size[:, None, None], 0)
    # NaN times 0 is NaN: pixels that a bin does not reach are not read
    return torch.minimum(pixel, last[..., None]).clamp(0, limit - 1), weight


def _under_hat(high: Tensor, low: Tensor) -> Tensor:
    """Integral of max(0, 1 - abs(t)) from ``low`` to ``high``."""
    high, low = high.clamp(-1, 1), low.clamp(-1, 1)
    return high - low - (high * high.abs() - low * low.abs()) / 2
