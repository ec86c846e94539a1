# Copyright (c) addp_mm contributors. Apache-2.0.
"""Correlation of two feature maps (Dosovitskiy et al., FlowNet, https://arxiv.org/abs/1504.06852)."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

from .common import compute_dtype, mmcv_op


@mmcv_op
def correlation_forward(
    input1: Tensor,
    input2: Tensor,
    output: Tensor,
    kH: int,
    kW: int,
    patchH: int,
    patchW: int,
    padH: int,
    padW: int,
    dilationH: int,
    dilationW: int,
    dilation_patchH: int,
    dilation_patchW: int,
    dH: int,
    dW: int,
) -> None:
    """Multiply windows of one map with shifted windows of another one.

    Args:
        input1: (N, C, H, W).
        input2: (N, C, H, W).
        output: (N, patchH, patchW, H', W'); filled in place with the sum, over the channels and the
            window, of ``input1`` times ``input2`` at the shifted positions. Both are 0 outside.
        kH: Rows of a window.
        kW: Columns of a window.
        patchH: Vertical shifts, odd: from -(patchH - 1) / 2 to (patchH - 1) / 2 steps.
        patchW: Horizontal shifts, odd.
        padH: Rows of zeros above and below.
        padW: Columns of zeros on the left and on the right.
        dilationH: Step between the rows of a window.
        dilationW: Step between the columns of a window.
        dilation_patchH: Step between the vertical shifts.
        dilation_patchW: Step between the horizontal shifts.
        dH: Step between windows, vertically.
        dW: Step between windows, horizontally.
    """
    if output.numel() == 0:
        return
    dtype = compute_dtype(input1, input2)
    first, steps = input1.to(dtype), (dilation_patchH, dilation_patchW)
    border = _border((patchH, patchW), steps)
    second, size = F.pad(input2.to(dtype), border), first.shape[2:]
    products = first.new_empty(len(first), patchH * patchW, *size)
    for number, window in enumerate(_shifts(size, (patchH, patchW), steps)):
        products[:, number] = (first * second[window]).sum(1)
    sums = F.conv2d(
        products.flatten(0, 1)[:, None],
        first.new_ones(1, 1, kH, kW),
        stride=(dH, dW),
        padding=(padH, padW),
        dilation=(dilationH, dilationW),
    )
    output.copy_(sums.view(output.shape))


@mmcv_op
def correlation_backward(
    grad_output: Tensor,
    input1: Tensor,
    input2: Tensor,
    grad_input1: Tensor,
    grad_input2: Tensor,
    kH: int,
    kW: int,
    patchH: int,
    patchW: int,
    padH: int,
    padW: int,
    dilationH: int,
    dilationW: int,
    dilation_patchH: int,
    dilation_patchW: int,
    dH: int,
    dW: int,
) -> None:
    """Write the gradients of :func:`correlation_forward` to ``grad_input1`` and ``grad_input2``."""
    if grad_output.numel() == 0:
        return
    dtype = compute_dtype(input1, input2)
    first, steps = input1.to(dtype), (dilation_patchH, dilation_patchW)
    border = _border((patchH, patchW), steps)
    second, size = F.pad(input2.to(dtype), border), first.shape[2:]
    flows = conv2d_input(
        (len(first) * patchH * patchW, 1, *size),
        first.new_ones(1, 1, kH, kW),
        grad_output.to(dtype).flatten(0, 2)[:, None],
        stride=(dH, dW),
        padding=(padH, padW),
        dilation=(dilationH, dilationW),
    ).view(len(first), patchH * patchW, 1, *size)
    by_first, by_second = torch.zeros_like(first), torch.zeros_like(second)
    for number, window in enumerate(_shifts(size, (patchH, patchW), steps)):
        by_first.addcmul_(flows[:, number], second[window])
        by_second[window].addcmul_(flows[:, number], first)
    left, _, top, _ = border
    grad_input1.copy_(by_first)
    grad_input2.copy_(by_second[:, :, top : top + size[0], left : left + size[1]])


def _border(patch: tuple[int, int], steps: tuple[int, int]) -> tuple[int, int, int, int]:
    """Zeros around the second map: left, right, top and bottom."""
    (rows, columns), (down, right) = patch, steps
    top, left = down * (rows - 1) // 2, right * (columns - 1) // 2
    return left, right * (columns - 1) - left, top, down * (rows - 1) - top


def _shifts(
    size: Sequence[int], patch: tuple[int, int], steps: tuple[int, int]
) -> Iterator[tuple[slice, slice, slice, slice]]:
    """Windows of the second map, with its border, for all shifts, row by row."""
    every = slice(None)
    for top in range(0, patch[0] * steps[0], steps[0]):
        for left in range(0, patch[1] * steps[1], steps[1]):
            yield every, every, slice(top, top + size[0]), slice(left, left + size[1])
