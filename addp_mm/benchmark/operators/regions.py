# Copyright (c) addp_mm contributors. Apache-2.0.
"""Regions of maps, as in detectors of two stages."""

import torch
import torch.nn.functional as F
import torchvision
from mmcv import ops
from torch import Tensor

from addp_mm.benchmark.operators.measured import LARGE_SCALE_CHANNELS, Inputs, differentiated, measured


@measured('torchvision')
def roi_align(make: Inputs):
    """1024 boxes on 2 maps of 256 x 200 x 334, forward and backward."""
    maps = make.maps(4)
    rois = make.with_image(make.boxes(make.size(1024), 4 * maps.size(2), 4 * maps.size(3)))
    own = differentiated(lambda x: ops.roi_align(x, rois, (7, 7), 0.25, 2, 'avg', True), maps)
    return own, differentiated(lambda x: torchvision.ops.roi_align(x, rois, (7, 7), 0.25, 2, True), maps)


@measured('torchvision with a bin for each point')
def roi_align_max(make: Inputs):
    """512 boxes on a map of 256 x 200 x 200, forward and backward, maxima."""
    side, count = make.size(200), make.size(512)
    # whole values, read at eighths of a pixel: no sum is rounded, and equal maxima stay equal
    maps = (255 * make.rand(1, LARGE_SCALE_CHANNELS, side, side)).round().requires_grad_()
    first = (make.rand(count, 2) * 0.8 * side).round()
    sides = 3.5 * (1 + 11 * make.rand(count, 2)).round()
    rois = torch.cat([torch.zeros(count, 1, device=make.device), 4 * first, 4 * (first + sides)], dim=1)

    def plain(x: Tensor) -> Tensor:
        return F.max_pool2d(torchvision.ops.roi_align(x, rois, (14, 14), 0.25, 1, True), 2)

    own = differentiated(lambda x: ops.roi_align(x, rois, (7, 7), 0.25, 2, 'max', True), maps)
    return own, differentiated(plain, maps)


@measured('torchvision')
def roi_pool(make: Inputs):
    """512 boxes on a map of 256 x 200 x 200, forward and backward."""
    side, count = make.size(200), make.size(512)
    maps = make.rand(1, LARGE_SCALE_CHANNELS, side, side, grad=True)
    # torchvision rounds edges to pixels, mmcv does not: boxes whose bins are 1 to 6 whole pixels
    first = (make.rand(count, 2) * 0.8 * side).round()
    sides = 7 * (1 + 5 * make.rand(count, 2)).round()
    image = torch.zeros(count, 1, device=make.device)
    mmcv_rois = torch.cat([image, 4 * first, 4 * (first + sides) - 1], dim=1)
    rois = torch.cat([image, 4 * first, 4 * (first + sides - 1)], dim=1)
    own = differentiated(lambda x: ops.roi_pool(x, mmcv_rois, (7, 7), 0.25), maps)
    return own, differentiated(lambda x: torchvision.ops.roi_pool(x, rois, (7, 7), 0.25), maps)


@measured('grid_sample of torch')
def deform_roi_pool(make: Inputs):
    """512 boxes on a map of 256 x 200 x 200, forward and backward, shifted bins."""
    side, count = make.size(200, 24), make.size(512)
    maps = make.rand(1, LARGE_SCALE_CHANNELS, side, side, grad=True)
    # points inside the map, at odd multiples of 1/128 pixel: both read the same four pixels
    start = (make.rand(count, 2) * 0.5 * side).round() + 1 / 128
    extent = 7 * (1 + 3 * make.rand(count, 2) * make.scale).round()
    first = 4 * (start + 0.5)
    rois = torch.cat([torch.zeros(count, 1, device=make.device), first, first + 4 * extent], dim=1)
    shifts = (8 * make.rand(count, 2, 7, 7)).round().div(8).requires_grad_()
    steps = (torch.arange(14, device=make.device) + 0.5) / 14

    def plain(x: Tensor, moved: Tensor) -> Tensor:
        axes = []
        for axis in (0, 1):
            at = (start[:, axis, None] + extent[:, axis, None] * steps).view((-1, 7, 2))
            at = at[:, None, :, None, :] if axis == 0 else at[:, :, None, :, None]
            axes.append(at + (0.125 * extent[:, axis, None, None] * moved[:, axis])[..., None, None])
        grid = torch.stack(torch.broadcast_tensors(*axes), dim=-1).view(1, count * 49, 4, 2)
        sampled = F.grid_sample(x, grid * 2 / (side - 1) - 1, align_corners=True).mean(-1)
        return sampled.view(LARGE_SCALE_CHANNELS, count, 7, 7).transpose(0, 1)

    own = differentiated(lambda x, moved: ops.deform_roi_pool(x, rois, moved, (7, 7), 0.25, 2, 0.125), maps, shifts)
    return own, differentiated(plain, maps, shifts)


@measured(None)
def bezier_align(make: Inputs):
    """64 words, 8 x 32 bins, on a map of 256 x 200 x 200, forward and backward."""
    side, count = make.size(200, 24), make.size(64)
    maps = make.rand(1, LARGE_SCALE_CHANNELS, side, side, grad=True)
    x = make.rand(count, 1) * 3 * side + torch.arange(4, device=make.device) * side / 4
    y = make.rand(count, 1) * 3 * side + 0.1 * side * make.rand(count, 4)
    upper = torch.stack([x, y], dim=-1)
    lower = torch.stack([x, y + side / 4], dim=-1).flip(1)
    curves = torch.cat([torch.zeros(count, 1, device=make.device), torch.cat([upper, lower], 1).flatten(1)], dim=1)
    return differentiated(lambda m: ops.bezier_align(m, curves, (8, 32), 0.25, 2, True), maps), None
