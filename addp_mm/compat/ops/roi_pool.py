# Copyright (c) addp_mm contributors. Apache-2.0.
"""RoIPool (Girshick, https://arxiv.org/abs/1504.08083) with mmcv's unrounded bins."""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .roi_grid import chunks, pixels_of


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
    pixels = pixels_of(features)
    first_x, last_x, wide = _bins(boxes[:, 1], boxes[:, 3], pooled_width, spatial_scale, width)
    first_y, last_y, tall = _bins(boxes[:, 2], boxes[:, 4], pooled_height, spatial_scale, height)
    rows = torch.arange(max(int((last_y - first_y).max()), 1), device=rois.device)
    columns = torch.arange(max(int((last_x - first_x).max()), 1), device=rois.device)
    elements = output[0].numel() * len(rows) * len(columns)
    for part in chunks(len(rois), elements):
        y, x = first_y[part, :, None] + rows, first_x[part, :, None] + columns
        # (k, PH, PW, GH, GW)
        valid = (y < last_y[part, :, None])[:, :, None, :, None] & (x < last_x[part, :, None])[:, None, :, None, :]
        pixel = y.clamp(max=height - 1)[:, :, None, :, None] * width + x.clamp(max=width - 1)[:, None, :, None, :]
        source = pixel + (boxes[part, 0].long() * height * width).view(-1, 1, 1, 1, 1)
        values = pixels[:, source].transpose(0, 1).masked_fill(~valid[:, None], -torch.inf).flatten(-2)
        best = values.argmax(-1, keepdim=True)
        value = values.gather(-1, best)[..., 0]
        found = pixel.flatten(-2)[:, None].expand_as(values).gather(-1, best)[..., 0]
        empty = ~valid.flatten(-2).any(-1)[:, None].expand_as(value)
        filled = (wide & tall)[part].view(-1, 1, 1, 1)
        output[part] = torch.where(filled, value.masked_fill(empty, 0.0).to(output.dtype), output[part])
        argmax[part] = torch.where(filled, found.masked_fill(empty, -1).to(argmax.dtype), argmax[part])


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
    channels, height, width = grad_input.shape[1:]
    planes = rois[:, :1].long() * channels + torch.arange(channels, device=rois.device)
    index = argmax.long() + (planes * height * width)[:, :, None, None]
    taken = argmax != -1
    total = torch.zeros(grad_input.numel(), dtype=compute_dtype(grad_input), device=grad_input.device)
    total.index_add_(0, index[taken], grad_output[taken].to(total.dtype))
    grad_input += total.view_as(grad_input)


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
