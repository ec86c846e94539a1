# Copyright (c) addp_mm contributors. Apache-2.0.
"""Points in space, and pixels of text."""

import torch
from mmcv import ops
from torch import Tensor

from addp_mm.benchmark.operators.measured import Inputs, measured

_RANGE = (0.0, -40.0, -3.0, 70.4, 40.0, 1.0)  # of KITTI, in metres


def _points(make: Inputs, count: int) -> Tensor:
    """(count, 4) points of a scan and their intensity."""
    low, high = torch.tensor(_RANGE, device=make.device).view(2, 3)
    return torch.cat([low + make.rand(count, 3) * (high - low), make.rand(count, 1)], dim=1)


@measured(None)
def points_in_boxes(make: Inputs):
    """20,000 points and 50 boxes."""
    points = _points(make, make.size(20000))[None, :, :3].contiguous()
    sides = torch.tensor([3.9, 1.6, 1.6], device=make.device).expand(50, 3)
    boxes = torch.cat([_points(make, 50)[:, :3], sides, 6 * make.rand(50, 1) - 3], dim=1)[None]
    return lambda: ops.points_in_boxes_cpu(points, boxes), None


@measured(None)
def voxelize(make: Inputs):
    """20,000 points, voxels of 0.16 x 0.16 x 4 m."""
    points = _points(make, make.size(20000))
    return lambda: list(ops.voxelization(points, (0.16, 0.16, 4.0), _RANGE, 32, 16000, True)), None


@measured(None)
def dynamic_voxelize(make: Inputs):
    """20,000 points, the voxel of each."""
    points = _points(make, make.size(20000))
    return lambda: ops.voxelization(points, (0.16, 0.16, 4.0), _RANGE, -1, -1, True), None


def _words(make: Inputs, side: int) -> tuple[Tensor, Tensor]:
    """Pixels of words, and the words: (side, side) bool and int32, 0 outside of the 16 kernels."""
    rows, columns = torch.meshgrid(*[torch.arange(side, device=make.device)] * 2, indexing='ij')
    cell = max(side // 4, 4)
    row, column = rows % cell / cell, columns % cell / cell
    text = (row - 0.5).abs().lt(0.3) & (column - 0.5).abs().lt(0.45)
    kernel = (row - 0.5).abs().lt(0.15) & (column - 0.5).abs().lt(0.3)
    return text, (kernel * (1 + rows // cell * 4 + columns // cell)).int()


@measured(None)
def contour_expand(make: Inputs):
    """4 kernels of 16 words on a map of 184 x 184."""
    text, labels = _words(make, make.size(184, 16))
    kernels = torch.stack([text, text & (make.rand(*text.shape) < 0.9), text, labels > 0]).byte()
    number = int(labels.max()) + 1
    return lambda: torch.tensor(ops.contour_expand(kernels, labels, 2, number)), None


@measured(None)
def pixel_group(make: Inputs):
    """16 words on a map of 184 x 184."""
    text, labels = _words(make, make.size(184, 16))
    score, embedding = 0.6 + 0.4 * make.rand(*text.shape), make.rand(*text.shape, 4)
    contour = (labels > 0).byte()
    number = int(labels.max()) + 1

    def own() -> list[Tensor]:
        found = ops.pixel_group(score * text, text, embedding, labels, contour, number, 0.8)
        return [torch.tensor(one) for one in found]

    return own, None
