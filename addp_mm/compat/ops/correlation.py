# Copyright (c) addp_mm contributors. Apache-2.0.
"""Correlation of two feature maps (Dosovitskiy et al., FlowNet, https://arxiv.org/abs/1504.06852)."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .taps import FilterAxis, gradient_of_window_sums, window_sums


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
    pair = _Pair.of(input1, input2, (patchH, patchW), (dilation_patchH, dilation_patchW))
    rows = FilterAxis(input1.size(2), output.size(3), kH, 1, dH, padH, dilationH)
    columns = FilterAxis(input1.size(3), output.size(4), kW, 1, dW, padW, dilationW)
    for (row, column), window in pair.shifts():
        output[:, row, column] = window_sums((pair.first * pair.second[window]).sum(1), rows, columns).to(output.dtype)


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
    pair = _Pair.of(input1, input2, (patchH, patchW), (dilation_patchH, dilation_patchW))
    rows = FilterAxis(input1.size(2), grad_output.size(3), kH, 1, dH, padH, dilationH)
    columns = FilterAxis(input1.size(3), grad_output.size(4), kW, 1, dW, padW, dilationW)
    by_first, by_second = torch.zeros_like(pair.first), torch.zeros_like(pair.second)
    for (row, column), window in pair.shifts():
        flow = gradient_of_window_sums(grad_output[:, row, column].to(by_first.dtype), rows, columns)[:, None]
        by_first.addcmul_(flow, pair.second[window])
        by_second[window].addcmul_(flow, pair.first)
    grad_input1.copy_(by_first)
    grad_input2.copy_(by_second[pair.middle])


class _Pair(NamedTuple):
    """Two maps, and the shifts of the second one."""

    first: Tensor  # (N, C, H, W)
    second: Tensor  # the same with a border of zeros
    patch: tuple[int, int]
    steps: tuple[int, int]

    @classmethod
    def of(cls, first: Tensor, second: Tensor, patch: tuple[int, int], steps: tuple[int, int]) -> '_Pair':
        """Pad the second map for all shifts.

        Args:
            first: (N, C, H, W).
            second: (N, C, H, W).
            patch: Vertical and horizontal shifts, odd.
            steps: Pixels from one shift to the next.
        """
        dtype = compute_dtype(first, second)
        bottom, right = (step * (count - 1) for step, count in zip(steps, patch, strict=True))
        border = (right // 2, right - right // 2, bottom // 2, bottom - bottom // 2)
        return cls(first.to(dtype), F.pad(second.to(dtype), border), patch, steps)

    @property
    def middle(self) -> tuple[slice, ...]:
        """The window without a shift."""
        down, right = (step * (count - 1) // 2 for step, count in zip(self.steps, self.patch, strict=True))
        return self._window(down, right)

    def shifts(self) -> Iterator[tuple[tuple[int, int], tuple[slice, ...]]]:
        """Yield all shifts (row, column), and their windows of the second map."""
        for row, column in itertools.product(*map(range, self.patch)):
            yield (row, column), self._window(row * self.steps[0], column * self.steps[1])

    def _window(self, top: int, left: int) -> tuple[slice, ...]:
        height, width = self.first.shape[2:]
        return slice(None), slice(None), slice(top, top + height), slice(left, left + width)
