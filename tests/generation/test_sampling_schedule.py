# Copyright (c) addp_mm contributors. Apache-2.0.
"""The schedule of generation: its shares and temperatures, and what it refuses."""

import math

import pytest

from addp_mm.errors import ConfigError
from addp_mm.generation import SamplingSchedule


def test_the_published_schedule_is_the_default():
    published = SamplingSchedule()
    assert published.shares == tuple(math.cos(math.pi / 2 * (step + 1) / 20) for step in range(20))
    assert [published.noise_scale(step) for step in (0, 9, 19)] == pytest.approx([5.7, 3.0, 0.0])
    assert (published.order, published.top_p, published.top_k) == ('confidence', 1.0, None)
    assert SamplingSchedule(anneal=False).noise_scale(19) == 6.0


@pytest.mark.parametrize(
    'ratio, shares',
    [
        ('linear', (0.75, 0.5, 0.25, 0)),
        ('power:1', (0.75, 0.5, 0.25, 0)),
        ('power:2', (15 / 16, 0.75, 7 / 16, 0)),
        ('power:0.5', (0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75), 0)),
        (lambda step, steps: 0.5, (0.5, 0.5, 0.5, 0.5)),
    ],
)
def test_shares_of_a_ratio(ratio, shares):
    assert SamplingSchedule(num_steps=4, ratio=ratio).shares == pytest.approx(shares)


@pytest.mark.parametrize(
    'options, value',
    [
        (dict(num_steps=0), '0'),
        (dict(num_steps=2.5), '2.5'),
        (dict(num_steps='8'), "'8'"),
        (dict(num_steps=True), 'True'),
        (dict(ratio='square'), "'square'"),
        (dict(ratio='power'), "'power'"),
        (dict(ratio='power:-1'), "'power:-1'"),
        (dict(ratio='power:nan'), "'power:nan'"),
        (dict(ratio=None), 'None'),
        (dict(ratio=2), '2'),
        (dict(temperature=-1.0), '-1.0'),
        (dict(temperature=math.nan), 'nan'),
        (dict(temperature=math.inf), 'inf'),
        (dict(order='random'), "'random'"),
        (dict(top_p=0.0), '0.0'),
        (dict(top_p=1.5), '1.5'),
        (dict(top_p=math.nan), 'nan'),
        (dict(top_k=0), '0'),
        (dict(top_k=1.5), '1.5'),
    ],
    ids=lambda value: str(value),
)
def test_a_bad_option_is_named_with_its_value(options, value):
    with pytest.raises(ConfigError, match=f'^{next(iter(options))} must .*got {value}'):
        SamplingSchedule(**options)


@pytest.mark.parametrize(
    'ratio, message',
    [
        (lambda step, steps: math.nan, 'gives nan at step 0 of 20'),
        (lambda step, steps: -0.1, 'gives -0.1 at step 0 of 20'),
        (lambda step, steps: 1.5 - step, 'gives 1.5 at step 0 of 20'),
        (lambda step, steps: 'half', "gives 'half' at step 0 of 20"),
        (lambda step, steps: None, 'gives None at step 0 of 20'),
        (lambda step, steps: (step + 1) / steps, 'gives 0.1 at step 1 of 20, and 0.05 before'),
    ],
)
def test_a_ratio_function_that_makes_no_sense_is_refused(ratio, message):
    with pytest.raises(ConfigError, match=f'^ratio must .*; .* {message}'):
        SamplingSchedule(ratio=ratio)


def test_a_misspelt_option_is_named():
    assert SamplingSchedule.of(dict(num_steps=3)) == SamplingSchedule(3)
    with pytest.raises(ConfigError, match='no option num_step; did you mean num_steps.; its options are num_steps, '):
        SamplingSchedule.of(dict(num_step=3))
