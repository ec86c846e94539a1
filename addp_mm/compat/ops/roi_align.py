# Copyright (c) addp_mm contributors. Apache-2.0.
"""RoIAlign (He et al., https://arxiv.org/abs/1703.06870) with average and maximum pooling."""

import torch
import torchvision.ops  # noqa: F401  registers the kernels under torch.ops.torchvision
from torch import Tensor

from .common import allow_atomics, compute_dtype, mmcv_op
from .roi_grid import RoIGrid, bilinear_corners, chunks, roi_grid
from .weighted_rows import pixel_rows, weighted_sums

_MAX = 0


@mmcv_op
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool the features of each RoI to a fixed size.

    Args:
        input: (N, C, H, W) features.
        rois: (K, 5): index in the batch, then x1, y1, x2, y2 in pixels of the image.
        output: (K, C, aligned_height, aligned_width); filled in place.
        argmax_y: As ``output``; filled with the row of the maximum (-1: none) if
            ``pool_mode`` is 0.
        argmax_x: As ``argmax_y``, the column.
        aligned_height: Rows of bins of a RoI.
        aligned_width: Columns of bins of a RoI.
        spatial_scale: Pixels of the feature map for one of the image.
        sampling_ratio: Sampling points of a bin in each direction. 0: the size of the bin in
            pixels, rounded up.
        pool_mode: 0 maximum, 1 average.
        aligned: Whether to shift RoIs by half a pixel.

    Raises:
        RuntimeError: On the CPU a RoI has NaN or Inf, or, if ``aligned``, a negative size, as in
            mmcv.
    """
    if output.numel() == 0:
        return
    dtype = compute_dtype(input)
    features, boxes = input.to(dtype), rois.to(dtype)
    if not input.is_cuda:  # only torchvision's CUDA kernel is known to read nothing outside then
        _refuse_bad_sizes(boxes, spatial_scale, aligned)
    if pool_mode == _MAX:
        grid = roi_grid(boxes, aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
        _max_forward(features, boxes, grid, output, argmax_y, argmax_x)
        return
    pooled = torch.ops.torchvision.roi_align(
        features, boxes, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
    )
    output.copy_(pooled)


@mmcv_op
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of :func:`roi_align_forward` to ``grad_input`` (N, C, H, W)."""
    if grad_output.numel() == 0:
        return
    dtype = compute_dtype(grad_output)
    grad, boxes = grad_output.to(dtype), rois.to(dtype)
    if pool_mode == _MAX:
        grad_input += _max_backward(grad, boxes, argmax_y.to(dtype), argmax_x.to(dtype), grad_input.shape)
        return
    with allow_atomics():
        grad_input += torch.ops.torchvision._roi_align_backward(  # noqa: SLF001  # its only name
            grad, boxes, spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio, aligned
        )


def _refuse_bad_sizes(rois: Tensor, spatial_scale: float, aligned: bool) -> None:
    if not bool(rois.isfinite().all()):  # torchvision's kernel would read any memory
        raise RuntimeError('RoIAlign: a RoI has NaN or Inf; the training has probably diverged')
    edges = rois[:, 1:] * spatial_scale - 0.5
    if aligned and not bool((edges[:, 2:] - edges[:, :2] >= 0).all()):
        raise RuntimeError('RoIAlign: a RoI has a negative width or height')


def _max_forward(
    features: Tensor, rois: Tensor, grid: RoIGrid, output: Tensor, argmax_y: Tensor, argmax_x: Tensor
) -> None:
    num_rois, channels, pooled_height, pooled_width = output.shape
    height, width = features.shape[2:]
    pixels = pixel_rows(features)
    # mmcv starts the search from these values on the CPU and on CUDA
    lowest = -10000.0 if features.device.type == 'cpu' else torch.finfo(torch.float32).min
    points = pooled_height * pooled_width * grid.valid[0].numel()
    for part in chunks(num_rois, points * max(channels, 4)):
        y, x, valid = grid.y[part], grid.x[part], grid.valid[part]
        # (k, PH, PW, GH, GW)
        shape = (len(y), pooled_height, pooled_width, *valid.shape[1:])
        index, weight = bilinear_corners(
            y[:, :, None, :, None].expand(shape), x[:, None, :, None, :].expand(shape), height, width
        )
        index = index + (rois[part, 0].long() * height * width).view(-1, 1, 1, 1, 1, 1)
        values = weighted_sums(pixels, index.flatten(0, 4), weight.flatten(0, 4)).view(*shape[:3], -1, channels)
        values.masked_fill_(~valid.flatten(1)[:, None, None, :, None], -torch.inf)
        value, best = values.max(3)  # (k, PH, PW, C), the first of equal ones
        found = value > lowest
        row = y[:, :, None].expand(shape[:4]).gather(3, best // valid.shape[2])
        column = x[:, None].expand(*shape[:3], -1).gather(3, best % valid.shape[2])
        output[part] = torch.where(found, value, lowest).permute(0, 3, 1, 2).to(output.dtype)
        argmax_y[part] = torch.where(found, row, -1).permute(0, 3, 1, 2).to(argmax_y.dtype)
        argmax_x[part] = torch.where(found, column, -1).permute(0, 3, 1, 2).to(argmax_x.dtype)


def _max_backward(grad: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, shape: torch.Size) -> Tensor:
    images, channels, height, width = shape
    index, weight = bilinear_corners(argmax_y, argmax_x, height, width)
    weight = weight * (argmax_y != -1)[..., None]
    planes = rois[:, :1].long() * channels + torch.arange(channels, device=grad.device)
    index = index + (planes * height * width)[:, :, None, None, None]
    grad_input = grad.new_zeros(images * channels * height * width)
    grad_input.index_add_(0, index.flatten(), (grad[..., None] * weight).flatten())
    return grad_input.view(shape)
