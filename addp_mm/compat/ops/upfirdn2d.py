# Copyright (c) addp_mm contributors. Apache-2.0.
"""Resampling by a filter, as in StyleGAN2 (Karras et al., https://arxiv.org/abs/1912.04958)."""

from torch import Tensor

from .common import compute_dtype, mmcv_op
from .taps import FilterAxis, filtered


@mmcv_op
def upfirdn2d(
    input: Tensor,
    filter: Tensor,
    upx: int,
    upy: int,
    downx: int,
    downy: int,
    padx0: int,
    padx1: int,
    pady0: int,
    pady1: int,
    flip: bool,
    gain: float,
) -> Tensor:
    """Insert zeros, pad, filter, and keep every n-th pixel.

    The gradient is the same operation with other settings, which mmcv calls.

    Args:
        input: (N, C, H, W).
        filter: (FH, FW).
        upx: Columns for each one of the input; all but the first are 0.
        upy: Rows for each one of the input.
        downx: Of how many columns the first is kept.
        downy: Of how many rows the first is kept.
        padx0: Zeros on the left, or pixels to cut off if negative.
        padx1: Zeros on the right.
        pady0: Zeros above.
        pady1: Zeros below.
        flip: Whether to correlate instead of to convolve.
        gain: Factor on the result.

    Returns:
        (N, C, H', W') with W' = (W * upx + padx0 + padx1 - FW) // downx + 1, and H' alike.
    """
    dtype, (height, width), (rows, columns) = compute_dtype(input), input.shape[2:], filter.shape
    down = FilterAxis(height, (height * upy + pady0 + pady1 - rows) // downy + 1, rows, upy, downy, pady0)
    right = FilterAxis(width, (width * upx + padx0 + padx1 - columns) // downx + 1, columns, upx, downx, padx0)
    taps = filter.to(dtype) * gain
    return filtered(input.to(dtype), taps if flip else taps.flip(0, 1), down, right).to(input.dtype)
