# Copyright (c) addp_mm contributors. Apache-2.0.
"""BorderAlign (Qiu et al., BorderDet, https://arxiv.org/abs/2007.11056)."""

import torch
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .roi_grid import bilinear_corners, chunks
from .weighted_rows import pixel_rows, weighted_sums

_BORDERS = 4  # top, left, bottom, right


@mmcv_op
def border_align_forward(input: Tensor, boxes: Tensor, output: Tensor, argmax_idx: Tensor, pool_size: int) -> None:
    """Take the maximum along each border of each box.

    A border has ``pool_size`` + 1 equidistant points, its ends included. The top and the left one
    start at (x1, y1), the bottom and the right one at (x2, y2).

    Args:
        input: (N, 4 * C, H, W) features: C channels each for the top, left, bottom and right
            border.
        boxes: (N, M, 4): x1, y1, x2, y2 in pixels of the feature map.
        output: (N, C, M, 4); filled in place.
        argmax_idx: As ``output``, int32; filled with the point of the maximum, the first of equal
            ones.
        pool_size: Number of steps along a border.
    """
    if output.numel() == 0:
        return
    dtype = compute_dtype(input)
    rows, corners = pixel_rows(input.to(dtype), _BORDERS), boxes.to(dtype).flatten(0, 1)
    height, width = input.shape[2:]
    channels, count = output.size(1), boxes.size(1)
    steps = torch.arange(pool_size + 1, device=input.device).to(dtype)
    by_box, best_by_box = output.transpose(1, 2), argmax_idx.transpose(1, 2)  # (N, M, C, 4)
    border = torch.arange(_BORDERS, device=input.device).view(-1, 1, 1)
    for part in chunks(len(corners), _BORDERS * (pool_size + 1) * max(channels, 4)):
        y, x = _points(corners[part], steps, pool_size)  # (k, 4, P)
        index, weight = bilinear_corners(y, x, height, width)
        box = torch.arange(part.start, part.start + len(y), device=input.device)
        image = box // count
        index = (index + (image * height * width).view(-1, 1, 1, 1)) * _BORDERS + border
        values = weighted_sums(rows, index.flatten(0, 2), weight.flatten(0, 2)).view(*y.shape, channels)
        highest, best = values.max(2)  # (k, 4, C)
        by_box[image, box % count] = highest.transpose(1, 2).to(output.dtype)
        best_by_box[image, box % count] = best.transpose(1, 2).to(argmax_idx.dtype)


@mmcv_op
def border_align_backward(
    grad_output: Tensor, boxes: Tensor, argmax_idx: Tensor, grad_input: Tensor, pool_size: int
) -> None:
    """Add the gradient of :func:`border_align_forward` to ``grad_input`` (N, 4 * C, H, W)."""
    if grad_output.numel() == 0:
        return
    dtype = compute_dtype(grad_output)
    corners, (height, width) = boxes.to(dtype).flatten(0, 1), grad_input.shape[2:]
    flows = grad_output.to(dtype).permute(0, 2, 3, 1).flatten(0, 1)  # (N * M, 4, C)
    best = argmax_idx.permute(0, 2, 3, 1).flatten(0, 1).to(dtype)
    channels, device = flows.size(2), grad_output.device
    total = torch.zeros(grad_input.numel(), dtype=dtype, device=device)
    plane = torch.arange(_BORDERS * channels, device=device).view(_BORDERS, channels)
    for part in chunks(len(corners), _BORDERS * channels * 4):
        y, x = _points(corners[part], best[part], pool_size)  # (k, 4, C)
        index, weight = bilinear_corners(y, x, height, width)
        image = torch.arange(part.start, part.start + len(y), device=device) // boxes.size(1)
        planes = image.view(-1, 1, 1) * _BORDERS * channels + plane
        index = index + (planes * height * width)[..., None]
        total.index_add_(0, index.flatten(), (flows[part][..., None] * weight).flatten())
    grad_input += total.view(grad_input.shape)


def _points(boxes: Tensor, steps: Tensor, pool_size: int) -> tuple[Tensor, Tensor]:
    """Rows and columns (k, 4, S) of points on the borders of boxes (k, 4).

    Args:
        boxes: (k, 4): x1, y1, x2, y2.
        steps: Anything that broadcasts to (k, 4, S): steps from the start of the border.
        pool_size: Number of steps along a border.
    """
    x1, y1, x2, y2 = boxes.unbind(1)
    across, down = (x2 - x1) / pool_size, (y2 - y1) / pool_size
    none = torch.zeros_like(across)
    start_x, start_y = torch.stack([x1, x1, x2, x2], dim=1), torch.stack([y1, y1, y2, y2], dim=1)
    step_x, step_y = torch.stack([across, none, -across, none], dim=1), torch.stack([none, down, none, -down], dim=1)
    return start_y[..., None] + step_y[..., None] * steps, start_x[..., None] + step_x[..., None] * steps
