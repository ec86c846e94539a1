# Copyright (c) addp_mm contributors. Apache-2.0.
"""Means over images with their 95 % confidence intervals."""

from __future__ import annotations

import numpy as np

from addp_mm.report.benchmark_figures import Interval

_NUM_RESAMPLES = 4000


def mean_with_interval(values: np.ndarray) -> Interval:
    """The mean of a number of each image, with the interval of the bootstrap over images.

    If all images are 0, or all are 1, resampled images do not differ: the interval is then that of
    Wilson (1927) for a share.

    Args:
        values: (N,), N at least 1.
    """
    count, mean = len(values), float(values.mean())
    if mean in (0.0, 1.0) and (values == mean).all():
        from scipy.stats import binomtest

        limits = binomtest(round(mean * count), count).proportion_ci(method='wilson')
        return Interval(mean, float(limits.low), float(limits.high))
    generator = np.random.default_rng(0)
    means = generator.multinomial(count, np.full(count, 1 / count), _NUM_RESAMPLES) @ values / count
    low, high = np.quantile(means, (0.025, 0.975))
    # the mean of equal numbers is rounded
    return Interval(mean, min(float(low), mean), max(float(high), mean))
