# Copyright (c) addp_mm contributors. Apache-2.0.
"""RoIAlign of rotated RoIs (Ma et al., https://arxiv.org/abs/1703.01086; He et al., 1703.06870)."""

from torch import Tensor

from .common import compute_dtype, mmcv_op
from .rotated_roi import RotatedRoIs, rotated_pool, rotated_pool_gradient


@mmcv_op
def roi_align_rotated_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> None:
    """Pool the features of each rotated RoI to a fixed size.

    Args:
        input: (N, C, H, W) features.
        rois: (K, 6): index in the batch, center x and y, width, height in pixels of the image,
            angle in radians.
        output: (K, C, pooled_height, pooled_width); filled in place.
        pooled_height: Rows of bins of a RoI.
        pooled_width: Columns of bins of a RoI.
        spatial_scale: Pixels of the feature map for one of the image.
        sampling_ratio: Sampling points of a bin in each direction. 0: the size of the bin in
            pixels, rounded up.
        aligned: Whether to shift RoIs by half a pixel. Otherwise they are at least one pixel large.
        clockwise: Whether angles are from x to y, not from x to -y.

    Raises:
        RuntimeError: A RoI has NaN or Inf, or, if ``aligned``, a negative size.
    """
    if output.numel() == 0:
        return
    dtype = compute_dtype(input)
    boxes = RotatedRoIs.read(rois.to(dtype), spatial_scale, aligned, clockwise)
    output.copy_(rotated_pool(input.to(dtype), boxes, (pooled_height, pooled_width), sampling_ratio))


@mmcv_op
def roi_align_rotated_backward(
    grad_output: Tensor,
    rois: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> None:
    """Add the gradient of :func:`roi_align_rotated_forward` to ``grad_input`` (N, C, H, W)."""
    if grad_output.numel() == 0:
        return
    dtype = compute_dtype(grad_output)
    boxes = RotatedRoIs.read(rois.to(dtype), spatial_scale, aligned, clockwise)
    grad_input += rotated_pool_gradient(grad_output.to(dtype), boxes, grad_input.shape, sampling_ratio)
