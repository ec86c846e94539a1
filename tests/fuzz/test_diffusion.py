# Copyright (c) addp_mm contributors. Apache-2.0.
"""Masks, noise levels, steps of generation, and tiles, with any sizes."""

import math
import string

import pytest
import torch
from helpers.strategies import generators, noise_schedules, sampling_schedules, seeds, token_masks
from hypothesis import given
from hypothesis import strategies as st

from addp_mm.diffusion import (
    NoiseDraw,
    halton_order,
    mask_length,
    nested_masks,
    random_masks,
    remask,
    remask_in_order,
    sample_ids,
    seeded_masks,
)
from addp_mm.errors import ConfigError
from addp_mm.generation import SamplingSchedule, plan_tiles


@given(noise_schedules(), generators(), st.integers(1, 70), st.integers(1, 3))
def test_masks_of_a_level_are_nested_and_have_their_counts(schedule, generator, num_tokens, batch_size):
    draw = NoiseDraw.sample(schedule, generator)
    level = draw.level
    assert 0 <= level.next_step - level.step <= schedule.max_stride
    assert level.ratio <= level.next_ratio < 1
    mask, following = nested_masks(num_tokens, level, batch_size, generator)
    assert not (mask & ~following).any()
    assert mask.sum(1).tolist() == [math.ceil(num_tokens * level.ratio)] * batch_size
    assert following.sum(1).tolist() == [math.ceil(num_tokens * level.next_ratio)] * batch_size


@given(noise_schedules())
def test_levels_ascend_and_have_probabilities(schedule):
    assert (schedule.ratios.diff() > 0).all()
    assert math.isclose(float(schedule.probabilities.sum()), 1)
    assert (schedule.probabilities >= 0).all()


@given(st.data(), st.integers(1, 50), generators())
def test_dropped_positions_are_masked(data, num_tokens, generator):
    ratios = torch.tensor(data.draw(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=3)))[:, None]
    drop_ratio = data.draw(st.floats(0, 1, exclude_max=True))
    mask, kept = random_masks(ratios, num_tokens, generator, drop_ratio)
    dropped = math.ceil(num_tokens * drop_ratio)
    assert mask.sum(1).tolist() == [max(dropped, math.ceil(share)) for share in (ratios * num_tokens)[:, 0].tolist()]
    if kept is None:
        assert dropped == 0
        return
    assert kept.shape == (len(ratios), num_tokens - dropped)
    for row, positions in zip(mask, kept, strict=True):
        assert positions.tolist() == sorted(set(positions.tolist()))
        left_out = set(range(num_tokens)) - set(positions.tolist())
        assert row[sorted(left_out)].all()


@given(st.lists(st.floats(0, 1), min_size=2, max_size=4).map(sorted), seeds, st.integers(1, 20))
def test_masks_for_evaluation_are_nested_over_all_ratios(ratios, seed, num_tokens):
    ids = torch.arange(2 * num_tokens).view(2, num_tokens)
    masks = seeded_masks(ids, ratios, seed)
    assert not (masks[:-1] & ~masks[1:]).any()
    assert torch.equal(masks[:, 1:], seeded_masks(ids[1:], ratios, seed))  # a row has its own masks


@given(sampling_schedules(), st.integers(0, 60))
def test_every_step_keeps_at_least_one_token_less_masked(schedule, masked):
    left = torch.tensor([masked])
    for step, share in enumerate(schedule.shares):
        assert 0 <= schedule.noise_scale(step) <= schedule.temperature
        length = mask_length(torch.tensor([masked]), share)
        assert min(1, masked) <= length <= left
        left = length


@given(st.data(), token_masks(st.integers(1, 3), st.integers(1, 16)), generators(), st.floats(0, 5))
def test_remasked_positions_were_masked_before(data, mask, generator, temperature):
    length = torch.tensor([data.draw(st.integers(0, int(count))) for count in mask.sum(1)])
    log_probs = torch.rand(mask.shape, generator=generator).log()
    order = torch.randperm(mask.shape[1], generator=generator)
    for found in (remask(log_probs, mask, length, temperature, generator), remask_in_order(order, mask, length)):
        assert not (found & ~mask).any()
        assert found.sum(1).tolist() == length.tolist()


@given(st.integers(1, 12), st.integers(1, 12))
def test_a_halton_order_has_each_position_once(height, width):
    assert sorted(halton_order(height, width).tolist()) == list(range(height * width))


@given(st.data(), st.integers(2, 8), generators())
def test_drawn_ids_are_possible_ones(data, num_codes, generator):
    logits = 20 * torch.randn(2, 3, num_codes, generator=generator)
    top_p, top_k = data.draw(st.floats(0.01, 1)), data.draw(st.none() | st.integers(1, num_codes))
    ids, log_probs = sample_ids(logits, generator, top_p, data.draw(st.floats(0.05, 9)), top_k)
    assert (ids >= 0).all()
    assert (ids < num_codes).all()
    assert (log_probs <= 0).all()
    better = (logits > logits.gather(-1, ids[..., None])).sum(-1)
    assert (better < (top_k or num_codes)).all()


# a schedule of a billion steps is possible, and slow
_NUMBERS = st.integers(-1, 100) | st.floats() | st.text(string.printable, max_size=8) | st.none() | st.booleans()


@given(st.dictionaries(st.sampled_from(list(SamplingSchedule.__dataclass_fields__)), _NUMBERS, max_size=3))
def test_options_of_generation_are_taken_or_refused(options):
    try:
        schedule = SamplingSchedule.of(options)
    except ConfigError:
        return
    assert len(schedule.shares) == schedule.num_steps


@given(token_masks(st.integers(3, 14), st.integers(4, 14)), st.none() | st.integers(0, 2))
def test_tiles_generate_each_masked_token_once(mask, overlap):
    grid = (3, 4)
    found = torch.zeros(mask.shape, dtype=torch.int64)
    for tile in plan_tiles(mask, grid, overlap):
        rows, columns = tile.window()
        assert rows.stop <= mask.shape[0]
        assert columns.stop <= mask.shape[1]
        assert tile.new.shape == grid
        found[tile.window()] += tile.new
    assert torch.equal(found, mask.long())


@pytest.mark.parametrize('overlap', [-1, 3, 4])
def test_an_overlap_of_a_whole_tile_is_refused(overlap):
    with pytest.raises(ConfigError):
        plan_tiles(torch.ones(6, 8, dtype=torch.bool), (3, 4), overlap)
