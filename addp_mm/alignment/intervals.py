# Copyright (c) addp_mm contributors. Apache-2.0.
"""Means over images with their 95 % confidence intervals."""

from __future__ import annotations

import numpy as np

from addp_mm.report.benchmark_figures import Interval

_NUM_RESAMPLES = 4000


def mean_with_interval(values: np.ndarray) -> Interval:
    """The mean of a number of each image, with the interval of the bootstrap over images.

    Args:
        values: (N,), N at least 1.
    """
    count, mean = len(values), float(values.mean())
    generator = np.random.default_rng(0)
    means = generator.multinomial(count, np.full(count, 1 / count), _NUM_RESAMPLES) @ values / count
    low, high = np.quantile(means, (0.025, 0.975))
    # the mean of equal numbers is rounded
    return Interval(mean, min(float(low), mean), max(float(high), mean))


def share_with_interval(shares: np.ndarray) -> Interval:
    """The mean of a share of each image, with its interval.

    If all shares are 0, or all are 1, resampled images do not differ. Then the interval is that of
    Wilson (1927).

    Args:
        shares: In [0, 1], (N,), N at least 1.
    """
    if 0 < shares.mean() < 1:
        return mean_with_interval(shares)
    from scipy.stats import binomtest

    found = binomtest(round(shares.sum()), len(shares))
    limits = found.proportion_ci(method='wilson')
    return Interval(float(shares.mean()), float(limits.low), float(limits.high))
