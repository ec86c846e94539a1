# Copyright (c) addp_mm contributors. Apache-2.0.
"""Tokens that are drawn again: which ones, what stays, and seeds."""

import dataclasses

import pytest
import torch
from helpers.tiny_alternating_model import tiny_conditional_model, tiny_model

from addp_mm.alignment.redraw import (
    NO_STEP,
    choose_tokens,
    lowest_of_step,
    lowest_scored_step,
    redraw_and_continue,
    redraw_generators,
    redraw_tokens,
)
from addp_mm.errors import ConfigError
from addp_mm.generation import AlternatingSampler, Guidance, SamplingSchedule
from addp_mm.generation.trajectories.replay import replay
from addp_mm.generation.trajectories.trajectories import KNOWN, TrajectoryError

NUMBERS = [3, 8, 20, 21]


def sampler(model=None, guidance=None, **options):
    return AlternatingSampler(model or tiny_model(), (4, 3), SamplingSchedule(4, **options), guidance)


def sampled(own, labels=None):
    return own.run(len(NUMBERS), torch.Generator().manual_seed(0), labels=labels).trajectories


def test_the_lowest_tokens_are_chosen_among_those_that_the_sampler_chose():
    values = torch.tensor([[0.4, 0.1, 0.3, 0.2], [0.0, 0.9, 0.7, 0.8]])
    generated = torch.tensor([[True] * 4, [False, True, True, True]])
    assert choose_tokens(values, generated, 0.5).tolist() == [[False, True, False, True], [False, False, True, True]]
    assert choose_tokens(values, generated, 0.01).sum(1).tolist() == [1, 1]
    assert torch.equal(choose_tokens(values, generated, 1.0), generated)
    for share in (0.0, 1.1, float('nan')):
        with pytest.raises(ConfigError, match=r'must be in \(0, 1\], got'):
            choose_tokens(values, generated, share)
    with pytest.raises(TrajectoryError, match='trajectory 1 has no token'):
        choose_tokens(values, generated & torch.tensor([[True], [False]]), 0.5)


def test_the_step_is_that_of_the_lowest_score_among_steps_with_two_tokens():
    kept_at = torch.tensor([[0, 1, 1, 2, 2], [0, 1, 2, KNOWN, KNOWN], [KNOWN, 0, 0, 0, 1]])
    scores = torch.tensor([[0.0, 0.3, 0.9, 0.2, 0.4], [0.1] * 5, [0.0, 0.5, 0.6, 0.7, 0.1]])
    steps = lowest_scored_step(scores, kept_at)
    assert steps.tolist() == [2, NO_STEP, 0]
    assert lowest_of_step(scores[[0, 2]], kept_at[[0, 2]], steps[[0, 2]]).tolist() == [3, 1]
    assert lowest_of_step(-scores[[0, 2]], kept_at[[0, 2]], steps[[0, 2]]).tolist() == [4, 3]


@pytest.mark.parametrize('options', [dict(), dict(model=tiny_conditional_model(), guidance=Guidance(2.0))])
def test_only_chosen_tokens_change(options):
    own = sampler(**options)
    found = sampled(own, [0, 1, 2, -1] if options else None)
    chosen = choose_tokens(found.log_probs, found.generated, 0.25)
    again = redraw_tokens(own, found, chosen, redraw_generators(0, 0, NUMBERS))
    changed = again.ids != found.ids
    assert chosen.sum(1).tolist() == [3] * 4
    assert changed.any()
    assert not changed[~chosen].any()
    assert torch.equal(again.trajectories.generated, chosen)
    torch.testing.assert_close(again.images, own.finished_pixels(again.ids))


@pytest.mark.parametrize('options', [dict(), dict(order='halton', top_k=5, top_p=0.9)])
def test_a_replaced_token_keeps_what_came_before_and_beside_it(options):
    own = sampler(**options)
    found = sampled(own)
    steps = lowest_scored_step(found.log_probs, found.kept_at)
    positions = lowest_of_step(found.log_probs, found.kept_at, steps)
    again = redraw_and_continue(own, found, positions, redraw_generators(0, 0, NUMBERS))
    changed = again.ids != found.ids
    token = torch.zeros_like(changed).scatter(1, positions[:, None], True)
    later = found.kept_at > steps[:, None]
    assert changed[token].all()
    assert not changed[~token & ~later].any()
    assert changed[later].any()
    torch.testing.assert_close(again.images, own.finished_pixels(again.ids))


def test_a_token_of_the_last_step_is_drawn_from_what_the_sampler_saw():
    own = sampler(top_k=2)
    found = sampled(own)
    last = found.kept_at.argmax(1)
    again = redraw_and_continue(own, found, last, redraw_generators(0, 0, NUMBERS))
    *_, step = replay(own, found)
    logits = step.logits[torch.arange(4), last].scatter(1, found.ids.gather(1, last[:, None]), -torch.inf)
    allowed = logits.topk(2).indices
    assert (again.ids.gather(1, last[:, None]) == allowed).any(1).all()
    assert ((again.ids != found.ids).sum(1) == 1).all()


@pytest.mark.parametrize('form', ['tokens', 'continue'])
def test_draws_depend_on_seed_number_and_draw_alone(form):
    own = sampler()
    found = sampled(own)
    chosen = choose_tokens(found.log_probs, found.generated, 0.5)

    def again(rows, seed=0, draw=0, batch_size=None):
        generators = redraw_generators(seed, draw, [NUMBERS[row] for row in rows])
        if form == 'tokens':
            return redraw_tokens(own, found[rows], chosen[rows], generators, batch_size).ids
        return redraw_and_continue(own, found[rows], torch.tensor([5] * len(rows)), generators, batch_size).ids

    first = again([0, 1, 2, 3])
    assert torch.equal(again([0, 1, 2, 3], batch_size=3), first)
    assert torch.equal(again([2, 0]), first[[2, 0]])
    assert not torch.equal(again([0, 1, 2, 3], draw=1), first)
    assert not torch.equal(again([0, 1, 2, 3], seed=1), first)


def test_trajectories_of_another_sampler_and_known_tokens_are_refused():
    own = sampler()
    found = sampled(own)
    damaged = dataclasses.replace(found, ids=found.ids + 16)
    generators = redraw_generators(0, 0, NUMBERS)
    with pytest.raises(TrajectoryError, match='ids must be from 0 to 15'):
        redraw_tokens(own, damaged, found.generated, generators)
    known = dataclasses.replace(found, kept_at=torch.full_like(found.kept_at, KNOWN))
    with pytest.raises(TrajectoryError, match='no token that the sampler chose'):
        redraw_and_continue(own, known, torch.zeros(4, dtype=torch.long), generators)
