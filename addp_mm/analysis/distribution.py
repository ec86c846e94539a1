# Copyright (c) addp_mm contributors. Apache-2.0.
"""Summarise many numbers by few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BINS = 40
_PER_DECADE = 20  # bins of a logarithmic histogram


@dataclass(frozen=True)
class Distribution:
    """Summary of numbers.

    Attributes:
        count: How many numbers there are.
        least: The smallest.
        median: The median.
        greatest: The largest.
        distinct: How many different numbers there are.
        edges: Limits of the bins of a histogram, one more than bins.
        heights: How many numbers are in each bin.
    """

    count: int
    least: float
    median: float
    greatest: float
    distinct: int
    edges: list[float]
    heights: list[int]

    def text(self, digits: int = 0) -> str:
        """``least / median / greatest``, with at most ``digits`` digits after the point."""
        values = (self.least, self.median, self.greatest)
        return ' / '.join(f'{value:,.{digits}f}' if value % 1 else f'{value:,.0f}' for value in values)


def distribution(values: np.ndarray, logarithmic: bool = False) -> Distribution | None:
    """Summarise numbers; those that are not finite are left out.

    Args:
        values: The numbers, of any shape.
        logarithmic: Whether the bins of the histogram have equal widths on a logarithmic scale.
            Only positive numbers are then in it. Defaults to False.

    Returns:
        The summary; None if no number remains.
    """
    values = np.asarray(values, np.float64).ravel()
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    binned = values[values > 0] if logarithmic else values
    edges = _bins(binned, logarithmic) if len(binned) else np.zeros(2)
    heights, _ = np.histogram(np.clip(binned, edges[0], edges[-1]), edges)
    return Distribution(
        count=len(values),
        least=float(values.min()),
        median=float(np.median(values)),
        greatest=float(values.max()),
        distinct=len(np.unique(values)),
        edges=[float(edge) for edge in edges],
        heights=[int(height) for height in heights],
    )


def _bins(values: np.ndarray, logarithmic: bool) -> np.ndarray:
    """Limits of bins. They are round numbers, so that two histograms can be compared."""
    low, high = float(values.min()), float(values.max())
    if logarithmic:
        first, last = np.floor(_PER_DECADE * np.log10([low, high]))
        return 10 ** (np.arange(first, last + 2) / _PER_DECADE)
    width = max(_round_up((high - low) / _BINS), 1.0 if np.all(values % 1 == 0) else 0.0) or 1.0
    # Bins of whole numbers are centred on them.
    first, last = np.floor(np.array([low, high]) / width + 0.5)
    return (np.arange(first, last + 2) - 0.5) * width


def _round_up(width: float) -> float:
    """The next of 1, 2, 5, 10, 20, … times a power of ten; 0 for 0."""
    if width <= 0:
        return 0.0
    power = 10.0 ** np.floor(np.log10(width))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= width * (1 - 1e-9)))
