# Copyright (c) addp_mm contributors. Apache-2.0.
"""Filters of maps as sums of shifted maps, one for each tap.

They are exact on every device, whereas a GPU rounds the inputs of float32 convolutions to TF32.
"""

from collections.abc import Iterator
from itertools import product
from math import gcd
from typing import NamedTuple

from torch import Tensor


class FilterAxis(NamedTuple):
    """One axis of a filter: output o reads from input (o * down + tap * dilation - pad) / up.

    Where that is not a whole number, or outside, it reads zero.
    """

    size: int  # of the input
    out: int  # of the output
    taps: int
    up: int = 1
    down: int = 1
    pad: int = 0
    dilation: int = 1

    def meetings(self) -> Iterator[tuple[int, slice, slice]]:
        """Yield each tap that reads anything, the outputs that it adds to, and the inputs."""
        shared = gcd(self.up, self.down)
        to_next, step = self.up // shared, self.down // shared  # outputs and inputs from one to the next
        for tap in range(self.taps):
            offset = tap * self.dilation - self.pad
            first = next((o for o in range(to_next) if (o * self.down + offset) % self.up == 0), None)
            if first is None:
                continue
            start = (first * self.down + offset) // self.up
            outside = max(-(start // step), 0)
            first, start = first + outside * to_next, start + outside * step
            count = min(len(range(first, self.out, to_next)), len(range(start, self.size, step)))
            if count > 0:
                end, last = first + (count - 1) * to_next + 1, start + (count - 1) * step + 1
                yield tap, slice(first, end, to_next), slice(start, last, step)


def filtered(images: Tensor, taps: Tensor, rows: FilterAxis, columns: FilterAxis) -> Tensor:
    """Correlate maps with a filter.

    Args:
        images: (..., H, W).
        taps: (rows.taps, columns.taps).
        rows: The vertical axis.
        columns: The horizontal axis.

    Returns:
        (..., rows.out, columns.out).
    """
    output = images.new_zeros(*images.shape[:-2], rows.out, columns.out)
    for (row, below, above), (column, right, left) in product(rows.meetings(), columns.meetings()):
        output[..., below, right].addcmul_(images[..., above, left], taps[row, column])
    return output


def window_sums(images: Tensor, rows: FilterAxis, columns: FilterAxis) -> Tensor:
    """Sum windows of maps, as a filter of ones does: (..., H, W) -> (..., H', W')."""
    lines = images.new_zeros(*images.shape[:-2], rows.out, columns.size)
    for _, below, above in rows.meetings():
        lines[..., below, :] += images[..., above, :]
    sums = images.new_zeros(*images.shape[:-2], rows.out, columns.out)
    for _, right, left in columns.meetings():
        sums[..., right] += lines[..., left]
    return sums


def gradient_of_window_sums(grad: Tensor, rows: FilterAxis, columns: FilterAxis) -> Tensor:
    """Gradient of :func:`window_sums` for the maps: (..., H', W') -> (..., H, W)."""
    lines = grad.new_zeros(*grad.shape[:-2], rows.out, columns.size)
    for _, right, left in columns.meetings():
        lines[..., left] += grad[..., right]
    total = grad.new_zeros(*grad.shape[:-2], rows.size, columns.size)
    for _, below, above in rows.meetings():
        total[..., above, :] += lines[..., below, :]
    return total
