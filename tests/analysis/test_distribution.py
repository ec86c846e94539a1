# Copyright (c) addp_mm contributors. Apache-2.0.
"""Summaries of numbers, and of image sizes."""

import numpy as np
import pytest

from addp_mm.analysis.distribution import distribution
from addp_mm.analysis.image_sizes import image_sizes


def test_numbers_of_a_distribution():
    found = distribution(np.array([3.0, np.nan, 1.0, 8.0, 3.0, np.inf]))
    assert (found.count, found.least, found.median, found.greatest, found.distinct) == (4, 1, 3, 8, 3)
    assert found.text() == '1 / 3 / 8'
    assert distribution(np.array([np.nan])) is None
    assert distribution(np.zeros(0)) is None


@pytest.mark.parametrize('logarithmic', [False, True])
@pytest.mark.parametrize('scale', [1e-6, 0.3, 1, 7, 1e5])
def test_every_number_is_in_a_bin(logarithmic, scale):
    values = scale * np.random.default_rng(0).lognormal(size=1000)
    found = distribution(values, logarithmic)
    assert sum(found.heights) == 1000
    assert len(found.edges) == len(found.heights) + 1
    for low, high, height in zip(found.edges, found.edges[1:], found.heights, strict=False):
        assert abs(((values >= low) & (values < high)).sum() - height) <= 1  # rounding of a limit


@pytest.mark.parametrize('values', [[5], [2, 2, 2], [0, 1, 1, 3], list(range(300))])
def test_whole_numbers_are_in_the_middle_of_their_bins(values):
    found = distribution(np.array(values))
    assert sum(found.heights) == len(values)
    width = found.edges[1] - found.edges[0]
    assert width % 1 == 0
    assert found.edges[0] % width == width / 2
    if width == 1:
        assert found.heights == [values.count(value) for value in range(min(values), max(values) + 1)]


def test_a_logarithmic_histogram_leaves_out_what_has_no_logarithm():
    found = distribution(np.array([0.0, -1.0, 1.0, 10.0]), logarithmic=True)
    assert (found.count, sum(found.heights)) == (4, 2)
    assert distribution(np.zeros(3), logarithmic=True).heights == [0]


def test_image_sizes():
    found = image_sizes(np.array([[64, 48], [32, 32], [64, 48], [np.nan, np.nan], [48, 64]]))
    assert (found.count, found.unknown, found.distinct) == (4, 1, 3)
    assert found.common[0] == (64, 48, 2)
    assert sum(count for _, _, count in found.common) == 4
    assert (found.width.text(), found.height.text()) == ('32 / 56 / 64', '32 / 48 / 64')
    assert image_sizes(np.zeros((0, 2))).width is None
