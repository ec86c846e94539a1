# Copyright (c) addp_mm contributors. Apache-2.0.
"""CARAFE: content-aware reassembly of features (https://arxiv.org/abs/1905.02188)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import compute_dtype, mmcv_op


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
    dtype = compute_dtype(features, masks)
    windows = _windows(features.to(dtype), kernel_size, group_size)
    weights = _weights(masks.to(dtype), kernel_size, group_size, scale_factor)
    output.copy_(torch.einsum('ngckhw,ngkhawb->ngchawb', windows, weights).reshape(output.shape))


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
    by_features, by_masks = _gradients(top_grad, features, masks, kernel_size, group_size, scale_factor)
    bottom_grad += by_features
    mask_grad += by_masks


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


def _windows(features: Tensor, kernel_size: int, groups: int) -> Tensor:
    """(N, C, H, W) -> (N, groups, C / groups, kernel_size^2, H, W)."""
    batch, channels, height, width = features.shape
    windows = F.unfold(features, kernel_size, padding=(kernel_size - 1) // 2)
    return windows.view(batch, groups, channels // groups, kernel_size**2, height, width)


def _weights(masks: Tensor, kernel_size: int, groups: int, scale: int) -> Tensor:
    """(N, groups * kernel_size^2, H * scale, W * scale) -> (N, groups, k^2, H, scale, W, scale)."""
    batch, _, height, width = masks.shape
    return masks.reshape(batch, groups, kernel_size**2, height // scale, scale, width // scale, scale)


def _gradients(
    grad: Tensor, features: Tensor, masks: Tensor, kernel_size: int, groups: int, scale: int
) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(features, masks)
    batch, channels, height, width = features.shape
    grad = grad.to(dtype).reshape(batch, groups, channels // groups, height, scale, width, scale)
    weights = _weights(masks.to(dtype), kernel_size, groups, scale)
    by_windows = torch.einsum('ngchawb,ngkhawb->ngckhw', grad, weights)
    by_windows = by_windows.reshape(batch, channels * kernel_size**2, height * width)
    by_features = F.fold(by_windows, (height, width), kernel_size, padding=(kernel_size - 1) // 2)
    by_masks = torch.einsum('ngchawb,ngckhw->ngkhawb', grad, _windows(features.to(dtype), kernel_size, groups))
    return by_features, by_masks.reshape(masks.shape)
