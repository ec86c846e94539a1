# Copyright (c) addp_mm contributors. Apache-2.0.
"""Rotated boxes, as in detectors of aerial images of 1024 x 1024."""

import torch
import torch.nn.functional as F
from mmcv import ops
from torch import Tensor

from addp_mm.benchmark.operators.measured import LARGE_SCALE_CHANNELS, Inputs, differentiated, measured
from addp_mm.benchmark.operators.suppression import kept_by_loop

SIDE = 1024


def corners(boxes: Tensor) -> Tensor:
    """(N, 8) corners of rotated boxes (N, 5)."""
    x, y, width, height, angle = boxes[:, :, None].unbind(1)
    right = torch.tensor([-0.5, 0.5, 0.5, -0.5], device=boxes.device) * width
    down = torch.tensor([-0.5, -0.5, 0.5, 0.5], device=boxes.device) * height
    across, along = angle.cos(), angle.sin()
    return torch.stack([x + right * across - down * along, y + right * along + down * across], dim=-1).flatten(1)


@measured('a loop over the kept boxes')
def nms_rotated(make: Inputs):
    """2000 rotated boxes."""
    boxes = make.rotated(make.size(2000), SIDE, SIDE)
    scores = make.scores(len(boxes))

    def plain() -> Tensor:
        return kept_by_loop(ops.box_iou_rotated(boxes, boxes), scores, lambda found: found >= 0.1)

    return lambda: ops.nms_rotated(boxes, scores, 0.1)[1], plain


@measured('a loop over the kept boxes')
def nms_quadri(make: Inputs):
    """2000 quadrilaterals."""
    quads = corners(make.rotated(make.size(2000), SIDE, SIDE))
    scores = make.scores(len(quads))

    def plain() -> Tensor:
        return kept_by_loop(ops.box_iou_quadri(quads, quads), scores, lambda found: found >= 0.1)

    return lambda: ops.nms_quadri(quads, scores, 0.1)[1], plain


@measured(None)
def box_iou_rotated(make: Inputs):
    """2000 rotated boxes against 100."""
    one, other = (make.rotated(make.size(count), SIDE, SIDE) for count in (2000, 100))
    return lambda: ops.box_iou_rotated(one, other), None


@measured(None)
def box_iou_quadri(make: Inputs):
    """2000 quadrilaterals against 100."""
    one, other = (corners(make.rotated(make.size(count), SIDE, SIDE)) for count in (2000, 100))
    return lambda: ops.box_iou_quadri(one, other), None


@measured('grid_sample of torch')
def roi_align_rotated(make: Inputs):
    """1024 boxes on 2 maps of 256 x 256 x 256, forward and backward."""
    side, count = make.size(SIDE // 4, 24), make.size(1024)
    boxes = make.rotated(count, 4 * side, 4 * side)
    rois = make.with_image(boxes)
    maps = make.rand(2, LARGE_SCALE_CHANNELS, side, side, grad=True)
    steps = (torch.arange(14, device=make.device) + 0.5) / 14 - 0.5

    def plain(x: Tensor) -> Tensor:
        center_x, center_y, width, height, angle = boxes[:, :, None, None].unbind(1)
        right, down = width * steps, height * steps[:, None]
        across, along = angle.cos(), angle.sin()
        points = torch.stack([right * across - down * along + center_x, right * along + down * across + center_y], -1)
        grids = ((points / 4 - 0.5) * 2 / (side - 1) - 1).split([count // 2, count - count // 2])
        pooled = [
            F.grid_sample(x[i : i + 1], grid.view(1, -1, 14, 2), align_corners=True).view(-1, len(grid), 14, 14)
            for i, grid in enumerate(grids)
        ]
        return F.avg_pool2d(torch.cat(pooled, 1), 2).transpose(0, 1)

    own = differentiated(lambda x: ops.roi_align_rotated(x, rois, (7, 7), 0.25, 2, True, True), maps)
    return own, differentiated(plain, maps)


@measured(None)
def rotated_feature_align(make: Inputs):
    """5 points of a box at each position of 2 maps of 256 x 128 x 128, forward and backward."""
    side = make.size(SIDE // 8, 8)
    maps = make.rand(2, LARGE_SCALE_CHANNELS, side, side, grad=True)
    anchors = make.rotated(2 * side**2, 8 * side, 8 * side).view(2, side, side, 5)
    return differentiated(lambda x: ops.rotated_feature_align(x, anchors, 1 / 8, 5), maps), None


@measured('an index')
def active_rotated_filter(make: Inputs):
    """8 orientations of a 3 x 3 convolution of 256 to 256 channels, forward and backward."""
    planes = make.size(32)
    weight = make.rand(planes, planes, 8, 3, 3, grad=True)
    moved = torch.stack([torch.randperm(72, generator=make.generator) for _ in range(8)], dim=-1)
    indices = (moved + 1).int().view(8, 3, 3, 8).to(make.device)

    def plain(w: Tensor) -> Tensor:
        source = moved.to(w.device).argsort(0)  # where each entry of a rotated kernel comes from
        turned = w.view(planes, planes, 72)[..., source]  # (planes, planes, 72, 8)
        return turned.permute(0, 3, 1, 2).reshape(8 * planes, 8 * planes, 3, 3)

    return differentiated(lambda w: ops.active_rotated_filter(w, indices), weight), differentiated(plain, weight)
