# Copyright (c) addp_mm contributors. Apache-2.0.
"""Leaky ReLU between two resamplings, as in StyleGAN3 (https://arxiv.org/abs/2106.12423).

The backward pass is the same operation. It reads which values were negative or clamped from a
tensor of signs: two bits for each value, four values in a byte.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import compute_dtype, mmcv_op
from .upfirdn2d import upfirdn2d

_NEGATIVE, _CLAMPED = 1, 2
_ROW = 16  # values to which rows of signs are filled up, as in mmcv
_SHIFTS = (0, 2, 4, 6)  # of the values in a byte


@mmcv_op
def filtered_lrelu(
    x: Tensor,
    fu: Tensor,
    fd: Tensor,
    b: Tensor,
    si: Tensor,
    up: int,
    down: int,
    px0: int,
    px1: int,
    py0: int,
    py1: int,
    sx: int,
    sy: int,
    gain: float,
    slope: float,
    clamp: float,
    flip_filters: bool,
    writeSigns: bool,
) -> tuple[Tensor, Tensor | None, int]:
    """Add a bias, upsample, apply gain, leaky ReLU and clamp, and downsample.

    Args:
        x: (N, C, H, W).
        fu: (FH, FW), or (F,) for both axes: filter after zeros were inserted.
        fd: (FH, FW) or (F,): filter before pixels are left out.
        b: (C,) bias.
        si: As the returned signs: use them instead of the signs of the values. Empty for none.
        up: Rows and columns for each one of ``x``.
        down: Of how many rows and columns one is kept.
        px0: Zeros on the left of the upsampled map, or pixels to cut off if negative.
        px1: Zeros on the right.
        py0: Zeros above.
        py1: Zeros below.
        sx: Column of ``si`` for the first column of the upsampled map.
        sy: Row of ``si`` for its first row.
        gain: Factor on the upsampled map.
        slope: Slope of negative values.
        clamp: Largest size of a value.
        flip_filters: Whether to correlate instead of to convolve.
        writeSigns: Whether to return signs. ``si`` is then not read.

    Returns:
        (N, C, H', W'); signs of the upsampled map (N, C, UH, UW / 4, rounded up to 4) uint8, or
        None; and 0, which tells mmcv that the result is complete.
    """
    values = x.to(compute_dtype(x)) + b.to(compute_dtype(x))[:, None, None]
    values = _resampled(values, fu, up, 1, (px0, px1, py0, py1), flip_filters, up**2)
    values, signs = _activated(values, si, (sx, sy), gain, slope, clamp, writeSigns)
    return _resampled(values, fd, 1, down, (0, 0, 0, 0), flip_filters, 1).to(x.dtype), signs, 0


@mmcv_op
def filtered_lrelu_act_(
    x: Tensor, si: Tensor, sx: int, sy: int, gain: float, slope: float, clamp: float, writeSigns: bool
) -> Tensor | None:
    """Apply gain, leaky ReLU and clamp to the upsampled map ``x`` (N, C, UH, UW), in place.

    mmcv calls it for float64. The arguments and the signs are those of :func:`filtered_lrelu`.
    """
    values, signs = _activated(x.to(compute_dtype(x)), si, (sx, sy), gain, slope, clamp, writeSigns)
    x.copy_(values)
    return signs


def _resampled(
    values: Tensor, taps: Tensor, up: int, down: int, padding: tuple[int, int, int, int], flip: bool, gain: float
) -> Tensor:
    left, right, top, bottom = padding
    if taps.dim() == 2:
        return upfirdn2d(values, taps, up, up, down, down, left, right, top, bottom, flip, gain)
    values = upfirdn2d(values, taps[None], up, 1, down, 1, left, right, 0, 0, flip, gain**0.5)
    return upfirdn2d(values, taps[:, None], 1, up, 1, down, 0, 0, top, bottom, flip, gain**0.5)


def _activated(
    values: Tensor, given: Tensor, offset: tuple[int, int], gain: float, slope: float, clamp: float, write: bool
) -> tuple[Tensor, Tensor | None]:
    values = values * gain
    if given.numel() and not write:
        signs = _unpacked(given, offset, values.shape)
        values = torch.where(signs == _NEGATIVE, values * slope, values)
        return values.masked_fill(signs >= _CLAMPED, 0), None
    negative = values < 0
    values = torch.where(negative, values * slope, values)
    clamped = values.abs() > clamp
    signs = (negative.to(torch.uint8) * _NEGATIVE).masked_fill_(clamped, _CLAMPED)
    return values.clamp(-clamp, clamp), _packed(signs) if write else None


def _packed(signs: Tensor) -> Tensor:
    """Four values in a byte: (N, C, H, W) -> (N, C, H, W / 4, rounded up to 4) uint8."""
    filled = F.pad(signs, (0, -signs.size(3) % _ROW)).unflatten(3, (-1, len(_SHIFTS)))
    return sum(filled[..., slot] << shift for slot, shift in enumerate(_SHIFTS))


def _unpacked(packed: Tensor, offset: tuple[int, int], shape: torch.Size) -> Tensor:
    """Signs of a map of a shape, which begins at an offset (column, row) of them; 0 outside."""
    signs = torch.stack([packed >> shift & 3 for shift in _SHIFTS], dim=4).flatten(3)
    (left, top), (height, width) = offset, shape[2:]
    return F.pad(signs, (-left, width + left - signs.size(3), -top, height + top - signs.size(2)))
