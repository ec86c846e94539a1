# Copyright (c) addp_mm contributors. Apache-2.0.
"""Rotation-invariant RoIAlign (Han et al., https://arxiv.org/abs/2103.07733)."""

import math

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .rotated_roi import RotatedRoIs, rotated_pool, rotated_pool_gradient


@mmcv_op
def riroi_align_rotated_forward(
    features: Tensor,
    rois: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    num_samples: int,
    num_orientations: int,
    clockwise: bool,
) -> None:
    """Pool rotated RoIs, and turn the orientation channels by the angle of the RoI.

    Args:
        features: (N, C * num_orientations, H, W); orientations are next to each other.
        rois: (K, 6): index in the batch, center x and y, width, height in pixels of the image,
            angle in radians. They are at least one pixel large.
        output: (K, C * num_orientations, pooled_height, pooled_width); filled in place.
        pooled_height: Rows of bins of a RoI.
        pooled_width: Columns of bins of a RoI.
        spatial_scale: Pixels of the feature map for one of the image.
        num_samples: Sampling points of a bin in each direction. 0: the size of the bin in pixels,
            rounded up.
        num_orientations: Orientations of a full turn.
        clockwise: Whether RoIs are turned from x to y, not from x to -y. The channels are turned by
            the angle as it is, as in mmcv.

    Raises:
        RuntimeError: A RoI has NaN or Inf.
    """
    if output.numel() == 0:
        return
    dtype = compute_dtype(features)
    boxes = rois.to(dtype)
    read = RotatedRoIs.read(boxes, spatial_scale, False, clockwise)
    pooled = rotated_pool(features.to(dtype), read, (pooled_height, pooled_width), num_samples)
    output.copy_(_turn(pooled, boxes[:, 5], num_orientations, -1))


@mmcv_op
def riroi_align_rotated_backward(
    top_grad: Tensor,
    rois: Tensor,
    bottom_grad: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    num_samples: int,
    num_orientations: int,
    clockwise: bool,
) -> None:
    """Add the gradient of :func:`riroi_align_rotated_forward` to ``bottom_grad`` (N, C, H, W)."""
    if top_grad.numel() == 0:
        return
    dtype = compute_dtype(top_grad)
    boxes = rois.to(dtype)
    grad = _turn(top_grad.to(dtype), boxes[:, 5], num_orientations, 1)
    read = RotatedRoIs.read(boxes, spatial_scale, False, clockwise)
    bottom_grad += rotated_pool_gradient(grad, read, bottom_grad.shape, num_samples)


def _turn(pooled: Tensor, angle: Tensor, orientations: int, direction: int) -> Tensor:
    """Shift the orientations of each RoI, linearly between two whole shifts.

    Args:
        pooled: (K, C * orientations, PH, PW).
        angle: (K,) in radians.
        orientations: Orientations of a full turn.
        direction: -1 reads orientation o from o - shift. 1 is its transpose: it reads from
            o + shift.

    Returns:
        As ``pooled``.
    """
    shift = angle * orientations / (2 * math.pi)
    whole = shift.floor()
    share = (shift - whole).view(-1, 1, 1, 1, 1)
    channels = pooled.unflatten(1, (-1, orientations))
    number = torch.arange(orientations, device=pooled.device)

    def shifted(by: Tensor) -> Tensor:
        source = (number + direction * by[:, None]).remainder(orientations)
        return channels.gather(2, source[:, None, :, None, None].expand_as(channels))

    whole = whole.long()
    return ((1 - share) * shifted(whole) + share * shifted(whole - 1)).flatten(1, 2)
