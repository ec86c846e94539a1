# Copyright (c) addp_mm contributors. Apache-2.0.
"""Noise levels and nested masks."""

import math
from collections import Counter

import pytest
import torch

from addp_mm.diffusion import NoiseLevel, NoiseSchedule, masked_count, nested_masks


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_published_levels():
    schedule = NoiseSchedule()
    ratios = schedule.ratios.tolist()
    assert len(schedule) == 66
    assert ratios == sorted(ratios)
    assert ratios[0] == pytest.approx(math.cos(math.pi * 66 / 200))
    assert ratios[-1] == pytest.approx(math.cos(math.pi / 200))
    assert schedule.probabilities.sum().item() == pytest.approx(1)
    # ratio of the normal densities at the two ends
    ends = math.exp(-0.5 * (((ratios[-1] - 0.55) / 0.25) ** 2 - ((ratios[0] - 0.55) / 0.25) ** 2))
    assert (schedule.probabilities[-1] / schedule.probabilities[0]).item() == pytest.approx(ends)


def test_draws_follow_the_probabilities_and_the_stride():
    schedule, generator = NoiseSchedule(num_levels=12), seeded()
    levels = [schedule.sample(generator) for _ in range(4000)]
    steps = Counter(level.step for level in levels)
    for step, probability in enumerate(schedule.probabilities.tolist()):
        assert steps[step] / 4000 == pytest.approx(probability, abs=0.025)
    strides = Counter(level.next_step - level.step for level in levels if level.step == 0)
    assert set(strides) == {1, 2, 3, 4, 5}
    assert max(level.next_step for level in levels) == len(schedule) - 1
    assert all(level.next_step > level.step or level.step == len(schedule) - 1 for level in levels)


def test_a_seed_gives_the_same_level():
    schedule = NoiseSchedule()
    assert schedule.sample(seeded(5)) == schedule.sample(seeded(5))
    assert isinstance(schedule.sample(seeded(5)), NoiseLevel)
    level = schedule.level(3, 8)
    assert (level.ratio, level.next_ratio) == (float(schedule.ratios[3]), float(schedule.ratios[8]))


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(num_levels=0), 'num_levels and max_stride'),
        (dict(std=0.0), 'std positive'),
        (dict(max_stride=0), 'num_levels and max_stride'),
        (dict(min_ratio=1.0), 'no level has'),
        (dict(mean=10.0, std=0.1), 'is zero between'),
        (dict(mean=math.nan), 'is zero between'),
    ],
)
def test_schedules_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NoiseSchedule(**arguments)


@pytest.mark.parametrize('steps', [(-1, 0), (5, 4), (0, 66)])
def test_levels_outside_the_schedule_are_refused(steps):
    with pytest.raises(ValueError, match='steps must satisfy'):
        NoiseSchedule().level(*steps)


def test_counts_are_rounded_up():
    assert [masked_count(64, ratio) for ratio in (0.5, 0.501, 0.9999, 1.0)] == [32, 33, 64, 64]


def test_masks_are_nested_exact_and_seeded():
    level = NoiseSchedule().level(10, 14)
    mask, mask_next = nested_masks(256, level, 5, seeded())
    assert mask.dtype == mask_next.dtype == torch.bool
    assert mask.sum(1).tolist() == [math.ceil(256 * level.ratio)] * 5
    assert mask_next.sum(1).tolist() == [math.ceil(256 * level.next_ratio)] * 5
    assert not (mask & ~mask_next).any()
    assert not torch.equal(mask[0], mask[1])
    assert torch.equal(mask, nested_masks(256, level, 5, seeded())[0])


def test_all_positions_are_equally_likely_to_be_masked():
    mask, _ = nested_masks(8, NoiseLevel(0, 1, 0.5, 0.75), 4000, seeded())
    assert mask.float().mean(0).tolist() == pytest.approx([0.5] * 8, abs=0.03)
