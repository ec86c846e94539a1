# Copyright (c) addp_mm contributors. Apache-2.0.
"""CARAFE: content-aware reassembly of features (https://arxiv.org/abs/1905.02188)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .weighted_rows import gradient_of_rows, gradient_of_weights, images_of, pixel_rows, weighted_sums


@mmcv_op
def carafe_naive_forward(
    features: Tensor, masks: Tensor, output: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> None:
    """Upsample: each new pixel is a weighted sum of a window around its old pixel.

    Args:
        features: (N, C, H, W).
        masks: (N, group_size * kernel_size^2, H * scale_factor, W * scale_factor) weights.
        output: (N, C, H * scale_factor, W * scale_factor); filled in place.
        kernel_size: Side of the window, odd.
        group_size: Number of channel groups, each with its own weights.
        scale_factor: Factor on height and width.
    """
    if output.numel() == 0:
        return
    rows, index, weight = _windows(features, masks, kernel_size, group_size, scale_factor)
    output.copy_(images_of(weighted_sums(rows, index, weight), output.shape))


@mmcv_op
def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Add the gradients of :func:`carafe_naive_forward` to ``bottom_grad`` and ``mask_grad``."""
    if top_grad.numel() == 0:
        return
    rows, index, weight = _windows(features, masks, kernel_size, group_size, scale_factor)
    grad = pixel_rows(top_grad.to(rows.dtype), group_size)
    batch, channels, height, width = features.shape
    border = kernel_size // 2
    padded = batch, channels, height + 2 * border, width + 2 * border
    by_rows = images_of(gradient_of_rows(grad, index, weight, len(rows)), padded)
    bottom_grad += by_rows[:, :, border : border + height, border : border + width]
    by_weight = gradient_of_weights(grad, rows, index).view(batch, *masks.shape[2:], -1)
    mask_grad += by_weight.permute(0, 3, 1, 2)


@mmcv_op
def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """As :func:`carafe_naive_forward`; ``rfeatures`` keeps the features for the backward pass."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


@mmcv_op
def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Add the gradients of :func:`carafe_forward` to ``bottom_grad`` and ``mask_grad``."""
    carafe_naive_backward(top_grad, rfeatures, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor)


def _windows(
    features: Tensor, masks: Tensor, kernel_size: int, groups: int, scale: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What each new pixel sums.

    Returns:
        (R, C / groups) rows of the features with a border of zeros; and, for each group of each new
        pixel, (S, kernel_size^2) int32 index into them and weights.
    """
    dtype, device, border = compute_dtype(features, masks), masks.device, kernel_size // 2
    padded = F.pad(features.to(dtype), (border,) * 4)
    batch, _, height, width = padded.shape
    step = torch.arange(kernel_size, device=device)
    row = (torch.arange(masks.size(2), device=device) // scale)[:, None] + step
    column = (torch.arange(masks.size(3), device=device) // scale)[:, None] + step
    image = torch.arange(batch, device=device).view(-1, 1, 1, 1, 1) * height
    pixel = (image + row[:, None, :, None]) * width + column[:, None]  # (N, H, W, k, k)
    index = pixel.flatten(3)[:, :, :, None] * groups + torch.arange(groups, device=device)[:, None]
    weight = masks.to(dtype).permute(0, 2, 3, 1).reshape(-1, kernel_size**2)
    return pixel_rows(padded, groups), index.flatten(0, 3).int(), weight
