# Copyright (c) addp_mm contributors. Apache-2.0.
"""Means over images, or over seeds, with their 95 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from addp_mm.report.benchmark_figures import Interval

_LIMITS = (0.025, 0.975)
_Z = 1.959964  # quantile of the normal distribution at 0.975
_NUM_RESAMPLES = 4000
#: Fewer values than this are too few to be drawn again: their resamples differ too little.
_FEW = 20
#: So many images, in total, must be on each side of a share for resamples to differ enough.
_RARE = 5


def mean_with_interval(values: np.ndarray) -> Interval:
    """The mean of a number of each image, or of each seed, with its interval.

    The interval is that of the bootstrap, or Student's for fewer than 20 values. One value has
    none.

    Args:
        values: (N,), N at least 1.
    """
    count, mean = len(values), float(values.mean())
    if count == 1:
        return Interval(mean)
    if count < _FEW:
        from scipy.stats import t

        arm = float(t.ppf(_LIMITS[1], count - 1) * values.std(ddof=1) / math.sqrt(count))
        return Interval(mean, mean - arm, mean + arm)
    generator = np.random.default_rng(0)
    means = generator.multinomial(count, np.full(count, 1 / count), _NUM_RESAMPLES) @ values / count
    return _between_quantiles(mean, means)


def statistic_with_interval(
    statistic: Callable[[np.ndarray], float], count: int, num_resamples: int = _NUM_RESAMPLES, seed: int = 0
) -> Interval:
    """Any statistic of a sample, with the interval of the bootstrap.

    Args:
        statistic: Called with the numbers of the elements, int64 (N,).
        count: Size N of the sample, at least 1.
        num_resamples: Defaults to 4000.
        seed: Of the resamples. Defaults to 0.

    Returns:
        The value of the sample, and its interval. The limits are NaN if the statistic of a resample
        is. A sample of one element has no interval.
    """
    value = float(statistic(np.arange(count)))
    if count == 1:
        return Interval(value)
    drawn = np.random.default_rng(seed).integers(count, size=(num_resamples, count))
    return _between_quantiles(value, np.array([statistic(rows) for rows in drawn]))


def share_with_interval(shares: np.ndarray) -> Interval:
    """The mean of a share of each image, with its interval.

    Resamples hardly differ if there are few images, or if almost all shares are 0, or 1. Then the
    interval is that of Wilson (1927), which takes each image as one trial. One image has none.

    Args:
        shares: In [0, 1], (N,), N at least 1.
    """
    count, total, mean = len(shares), float(shares.sum()), float(shares.mean())
    if count == 1:
        return Interval(mean)
    varies = float(np.ptp(shares)) > 0
    if varies and count >= _FEW and _RARE <= total <= count - _RARE:
        return mean_with_interval(shares)
    centre = (total + _Z**2 / 2) / (count + _Z**2)
    arm = _Z * math.sqrt(count * mean * (1 - mean) + _Z**2 / 4) / (count + _Z**2)
    # rounding must not leave 0 and 1
    return Interval(mean, max(0.0, min(mean, centre - arm)), min(1.0, max(mean, centre + arm)))


def share_difference_with_interval(differences: np.ndarray) -> Interval:
    """The mean difference of two shares of each image, with its interval.

    Where few images differ, the interval is that of Agresti and Min (2005) for matched pairs: half
    an image is added to each of the four possible outcomes. One image has none.

    Args:
        differences: In [-1, 1], (N,), N at least 1.
    """
    count, mean = len(differences), float(differences.mean())
    if count == 1:
        return Interval(mean)
    if count >= _FEW and float(np.abs(differences).sum()) >= _RARE and float(np.ptp(differences)) > 0:
        return mean_with_interval(differences)
    centre = float(differences.sum()) / (count + 2)
    variance = (float((differences**2).sum()) + 1) / (count + 2) - centre**2
    arm = _Z * math.sqrt(variance / (count + 2))
    return Interval(mean, max(-1.0, min(mean, centre - arm)), min(1.0, max(mean, centre + arm)))


def _between_quantiles(value: float, resampled: np.ndarray) -> Interval:
    low, high = np.quantile(resampled, _LIMITS)
    # the statistic of equal numbers is rounded; a NaN stays
    return Interval(value, float(np.minimum(low, value)), float(np.maximum(high, value)))
