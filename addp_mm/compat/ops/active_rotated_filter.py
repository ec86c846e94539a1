# Copyright (c) addp_mm contributors. Apache-2.0.
"""Active rotating filters (Zhou et al., https://arxiv.org/abs/1701.01833)."""

from torch import Tensor

from .common import mmcv_op


@mmcv_op
def active_rotated_filter_forward(input: Tensor, indices: Tensor, output: Tensor) -> None:
    """Write each filter once for each rotation, with its entries moved.

    Args:
        input: (O, I, orientations, H, W) filters.
        indices: (orientations, H, W, rotations), the new position of each entry, from 1 on.
        output: (O * rotations, I * orientations, H, W); filled in place.
    """
    if output.numel() == 0:
        return
    planes, inputs = input.shape[:2]
    rotations = indices.size(3)
    moved = _positions(indices).view(1, rotations, 1, -1).expand(planes, -1, inputs, -1)
    source = input.reshape(planes, 1, inputs, -1).expand(-1, rotations, -1, -1)
    target = output.reshape(planes, rotations, inputs, -1)
    output.copy_(target.scatter(3, moved, source).view(output.shape))


@mmcv_op
def active_rotated_filter_backward(grad_out: Tensor, indices: Tensor, grad_in: Tensor) -> None:
    """Fill ``grad_in`` (O, I, orientations, H, W) with the sums of ``grad_out`` over rotations."""
    if grad_in.numel() == 0:
        return
    planes, inputs = grad_in.shape[:2]
    rotations = indices.size(3)
    moved = _positions(indices).view(1, rotations, 1, -1).expand(planes, -1, inputs, -1)
    grad_in.copy_(grad_out.reshape(planes, rotations, inputs, -1).gather(3, moved).sum(1).view(grad_in.shape))


def _positions(indices: Tensor) -> Tensor:
    """(orientations, H, W, rotations) -> (rotations, orientations * H * W) int64, from 0 on."""
    return indices.flatten(0, 2).t().long() - 1
