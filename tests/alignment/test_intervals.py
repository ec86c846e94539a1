# Copyright (c) addp_mm contributors. Apache-2.0.
"""Confidence intervals over images and over seeds."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from addp_mm.alignment.intervals import (
    mean_with_interval,
    share_difference_with_interval,
    share_with_interval,
    statistic_with_interval,
)


def limits(interval):
    return interval.low, interval.high


def test_many_values_have_the_interval_of_the_bootstrap():
    values = np.array([0.0, 0.5, 0.5, 1.0] * 25)
    found = mean_with_interval(values)
    assert found.value == 0.5
    assert limits(found) == pytest.approx((0.43, 0.57), abs=0.01)  # 1.96 standard errors of 0.0354
    shares, any_statistic = share_with_interval(values), statistic_with_interval(lambda rows: values[rows].mean(), 100)
    assert shares == found
    assert limits(any_statistic) == pytest.approx(limits(found), abs=0.01)


def test_few_values_have_the_interval_of_student():
    values = np.array([1.0, 3.0, 4.0])
    wanted = ttest_1samp(values, 0).confidence_interval()
    assert limits(mean_with_interval(values)) == pytest.approx((wanted.low, wanted.high))


def test_one_value_has_no_interval():
    for function in (mean_with_interval, share_with_interval, share_difference_with_interval):
        found = function(np.array([0.25]))
        assert (found.value, found.low, found.high, found.arms) == (0.25, None, None, None)
    assert statistic_with_interval(lambda rows: 3.0, 1).arms is None


@pytest.mark.parametrize('right, count', [(0, 10), (10, 10), (0, 400), (3, 400), (398, 400), (7, 15)])
def test_a_rare_share_has_the_interval_of_wilson(right, count):
    found = share_with_interval(np.array([1.0] * right + [0.0] * (count - right)))
    wanted = binomtest(right, count).proportion_ci(method='wilson')
    assert limits(found) == pytest.approx((wanted.low, wanted.high), abs=1e-6)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_equal_shares_have_a_width():
    found = share_with_interval(np.full(30, 0.5))  # each image is right in half of its draws
    assert limits(found) == pytest.approx((0.3315, 0.6685), abs=1e-4)


def test_a_difference_of_no_image_has_a_width():
    found = share_difference_with_interval(np.zeros(98))
    assert found.value == 0
    assert limits(found) == pytest.approx((-0.0196, 0.0196), abs=1e-4)
    few = share_difference_with_interval(np.array([1.0, 0.0, 0.0, -0.5, 1.0]))
    assert few.value == pytest.approx(0.3)
    arm = 1.96 * math.sqrt((3.25 / 7 - (1.5 / 7) ** 2) / 7)
    assert limits(few) == pytest.approx((1.5 / 7 - arm, 1.5 / 7 + arm), abs=1e-4)
    every = share_difference_with_interval(np.ones(30))
    assert (every.value, every.high) == (1.0, 1.0)
    assert every.low == pytest.approx(30 / 32 - 1.96 * math.sqrt((31 / 32 - (30 / 32) ** 2) / 32), abs=1e-4)
    many = np.array([1.0, 0.0, -0.5, 0.5] * 10)
    assert share_difference_with_interval(many) == mean_with_interval(many)


def test_a_statistic_that_is_not_a_number_has_no_limits():
    found = statistic_with_interval(lambda rows: 1.0 if len({*rows}) == 3 else math.nan, 3)
    assert found.value == 1.0
    assert math.isnan(found.low)
