# Copyright (c) addp_mm contributors. Apache-2.0.
"""RoIPool (Girshick, https://arxiv.org/abs/1504.08083) with mmcv's unrounded bins."""

import torch
import torchvision.ops  # noqa: F401  registers the kernels under torch.ops.torchvision
from torch import Tensor

from .common import allow_atomics, compute_dtype, mmcv_op


@mmcv_op
def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Maximum of the pixels that each bin of a RoI touches.

    In torchvision bins are rounded to pixels first; here they are not. The right and lower edges of
    a RoI are one pixel further. The output of RoIs without area is not changed, as in mmcv.

    Args:
        input: (N, C, H, W) features.
        rois: (K, 5): index in the batch, then x1, y1, x2, y2 in pixels of the image.
        output: (K, C, pooled_height, pooled_width); filled in place, 0 for a bin without
            pixels.
        argmax: (K, C, pooled_height, pooled_width) int32; filled with
            ``row * W + column``, -1 for none.
        pooled_height: Rows of bins of a RoI.
        pooled_width: Columns of bins of a RoI.
        spatial_scale: Pixels of the feature map for one of the image.
    """
    if output.numel() == 0:
        return
    features, boxes = input.to(compute_dtype(input)), rois.to(compute_dtype(input))
    height, width = features.shape[2:]
    first_x, last_x, wide = _bins(boxes[:, 1], boxes[:, 3], pooled_width, spatial_scale, width)
    first_y, last_y, tall = _bins(boxes[:, 2], boxes[:, 4], pooled_height, spatial_scale, height)
    # a bin without pixels starts outside of the map
    first_x = torch.where(last_x > first_x, first_x, width)
    first_y = torch.where(last_y > first_y, first_y, height)
    bins = torch.empty(len(rois), pooled_height, pooled_width, 5, dtype=boxes.dtype, device=boxes.device)
    bins[..., 0] = boxes[:, 0, None, None]
    bins[..., 1], bins[..., 2] = first_x[:, None], first_y[:, :, None]
    bins[..., 3], bins[..., 4] = last_x[:, None] - 1, last_y[:, :, None] - 1
    # for torchvision each bin is a RoI of whole pixels, with one bin
    pooled = torch.ops.torchvision.roi_pool(features, bins.flatten(0, 2), 1.0, 1, 1)
    unchanged = ~(wide & tall)
    for target, found in zip((output, argmax), pooled, strict=True):
        found = found.view(len(rois), pooled_height, pooled_width, -1).permute(0, 3, 1, 2)
        before = target[unchanged]
        target.copy_(found)
        target[unchanged] = before


@mmcv_op
def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add the gradient of :func:`roi_pool_forward` to ``grad_input`` (N, C, H, W)."""
    if grad_output.numel() == 0:
        return
    grad, boxes = grad_output.to(compute_dtype(grad_output)), rois.to(compute_dtype(grad_output))
    with allow_atomics():
        grad_input += torch.ops.torchvision._roi_pool_backward(  # noqa: SLF001  # its only name
            grad, boxes, argmax, spatial_scale, pooled_height, pooled_width, *grad_input.shape
        )


def _bins(start: Tensor, end: Tensor, pooled: int, spatial_scale: float, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """First and last + 1 pixel of each bin on one axis (K, pooled); whether the RoI has a size.

    A RoI with NaN is pooled to 0, as by mmcv's kernel.
    """
    start, end = start * spatial_scale, (end + 1) * spatial_scale
    step = ((end - start) / pooled)[:, None]
    index = torch.arange(pooled, dtype=start.dtype, device=start.device)
    first = (index * step + start[:, None]).floor().nan_to_num(nan=0).clamp(0, size).long()
    last = ((index + 1) * step + start[:, None]).ceil().nan_to_num(nan=0).clamp(0, size).long()
    return first, last, ~(end <= start)
