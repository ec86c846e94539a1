# Copyright (c) addp_mm contributors. Apache-2.0.
"""Feature refinement of R3Det (Yang et al., https://arxiv.org/abs/1908.05612)."""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .roi_grid import bilinear_corners
from .weighted_rows import gradient_of_rows, images_of, pixel_rows, weighted_sums


@mmcv_op
def rotated_feature_align_forward(
    features: Tensor, best_bboxes: Tensor, output: Tensor, spatial_scale: float, points: int
) -> None:
    """Add to each pixel the features at the center, or the center and corners, of its box.

    Args:
        features: (N, C, H, W).
        best_bboxes: N * H * W boxes in any shape, such as (N, H, W, 5): center y, center x, width,
            height in pixels of the image, angle in radians from x to y, as mmcv reads them.
        output: (N, C, H, W); filled in place.
        spatial_scale: Pixels of the feature map for one of the image.
        points: 1: the center. 5: the corners too.
    """
    if output.numel() == 0:
        return
    dtype = compute_dtype(features)
    index, weight = _samples(best_bboxes.to(dtype), features.shape, spatial_scale, points)
    output.copy_(images_of(weighted_sums(pixel_rows(features.to(dtype)), index, weight), features.shape))


@mmcv_op
def rotated_feature_align_backward(
    top_grad: Tensor, best_bboxes: Tensor, bottom_grad: Tensor, spatial_scale: float, points: int
) -> None:
    """Add the gradient of :func:`rotated_feature_align_forward` to ``bottom_grad`` (N, C, H, W)."""
    if top_grad.numel() == 0:
        return
    dtype = compute_dtype(top_grad)
    index, weight = _samples(best_bboxes.to(dtype), top_grad.shape, spatial_scale, points)
    rows = gradient_of_rows(pixel_rows(top_grad.to(dtype)), index, weight, len(index))
    bottom_grad += images_of(rows, bottom_grad.shape)


def _samples(boxes: Tensor, shape: torch.Size, spatial_scale: float, points: int) -> tuple[Tensor, Tensor]:
    """Pixels to add to each pixel of all images: (N * H * W, S) int64, and their weights."""
    height, width = shape[2:]
    y, x = _points(boxes.reshape(-1, 5), spatial_scale, points)
    index, weight = bilinear_corners(y, x, height, width)
    itself = torch.arange(len(index), device=boxes.device)
    start = itself.div(height * width, rounding_mode='floor') * (height * width)
    index = torch.cat([itself[:, None], index.flatten(1) + start[:, None]], 1)
    return index, torch.cat([torch.ones_like(weight[:, 0, :1]), weight.flatten(1)], 1)


def _points(boxes: Tensor, spatial_scale: float, points: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of the points: (P, 5) -> two tensors (P, points)."""
    y, x, width, height = (boxes[:, :4] * spatial_scale)[:, :, None].unbind(1)
    if points == 1:
        return y, x
    cos, sin = boxes[:, 4:].cos(), boxes[:, 4:].sin()
    right = torch.tensor([0, 0.5, -0.5, -0.5, 0.5], dtype=boxes.dtype, device=boxes.device) * width
    down = torch.tensor([0, 0.5, 0.5, -0.5, -0.5], dtype=boxes.dtype, device=boxes.device) * height
    return y + sin * right + cos * down, x + cos * right - sin * down
