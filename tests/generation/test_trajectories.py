# Copyright (c) addp_mm contributors. Apache-2.0.
"""Trajectories record the sampler's decisions, and a replay sees what the sampler saw."""

import dataclasses

import pytest
import torch
from helpers.tiny_addp import build_model
from helpers.tiny_alternating_model import tiny_conditional_model, tiny_model

from addp_mm.apis import inpaint
from addp_mm.generation import AlternatingSampler, Guidance, SamplingSchedule
from addp_mm.generation.image_streams import image_generators
from addp_mm.generation.trajectories.replay import replay
from addp_mm.generation.trajectories.trajectories import KNOWN, TrajectoryError, join_trajectories


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sampler(model=None, guidance=None, **options):
    model = model or tiny_model()
    grid = getattr(model, 'grid_size', None) or model.latent_size
    return AlternatingSampler(model, grid, SamplingSchedule(**{**dict(num_steps=5), **options}), guidance)


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(order='halton', ratio='linear'),
        dict(top_k=4),
        dict(model=tiny_conditional_model(), labels=[0, -1, 2]),
        dict(model=tiny_conditional_model(), guidance=Guidance(2.0, 'linear'), labels=[0, -1, 2]),
        dict(model=build_model().eval()),
    ],
)
def test_a_replay_sees_what_the_sampler_saw(options):
    labels = options.pop('labels', None)
    own = sampler(**options)
    samples = own.run(3, seeded(), keep_steps=True, labels=labels)
    found = samples.trajectories
    assert found.labels.tolist() == (labels or [-1] * 3)
    assert torch.equal(found.ids, samples.ids)
    log_probs = torch.zeros_like(found.log_probs)
    for step, state in zip(replay(own, found), samples.steps[:-1], strict=True):
        assert torch.equal(step.state.mask, state.mask)
        assert torch.equal(step.state.images, state.images)
        assert torch.equal(step.state.ids[~state.mask], state.ids[~state.mask])
        own_log_probs = step.logits.log_softmax(-1).gather(-1, found.ids[..., None])[..., 0]
        log_probs = torch.where(step.kept, own_log_probs, log_probs)
    torch.testing.assert_close(log_probs, found.log_probs, rtol=0, atol=1e-6)
    assert found.num_steps == 5
    assert found.generated.all()


def test_a_replay_in_other_batches_is_equal_up_to_rounding():
    own = sampler(build_model().eval())
    found = own.run(5, seeded(), batch_size=2).trajectories
    for step, part in zip(replay(own, found), replay(own, found[3:]), strict=True):
        torch.testing.assert_close(step.logits[3:], part.logits)


def test_tokens_that_were_known_are_not_decisions():
    own = sampler()
    ids = torch.randint(16, (2, 12))
    mask = torch.rand(2, 12) < 0.5
    samples = own.complete(ids, mask, image_generators(2, seeded()), keep_steps=True)
    found = samples.trajectories
    assert torch.equal(found.generated, mask)
    assert (found.kept_at[~mask] == KNOWN).all()
    assert (found.log_probs[~mask] == 0).all()
    for step, state in zip(replay(own, found), samples.steps[:-1], strict=True):
        assert torch.equal(step.state.images, state.images)


def test_rows_and_parts():
    found = sampler().run(5, seeded(), batch_size=2).trajectories
    joined = join_trajectories([found[:2], found[torch.tensor([2, 3, 4])]])
    for field in dataclasses.fields(found):
        assert torch.equal(getattr(joined, field.name), getattr(found, field.name))
    assert len(found) == 5


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(ids=torch.full((2, 12), 16)), 'file: ids must be from 0 to 15, got 16 to 16'),
        (dict(ids=torch.zeros(2, 9, dtype=torch.long)), r'file: ids, kept_at and log_probs must be \(N, 12\)'),
        (dict(kept_at=torch.full((2, 12), 5)), 'kept_at must be from -1 to 4, got 5 to 5'),
        (dict(log_probs=torch.full((2, 12), torch.nan)), 'a log-probability is positive or NaN'),
    ],
)
def test_damaged_trajectories_are_named(change, message):
    found = sampler().run(2, seeded()).trajectories
    found.check(12, 5, 16)
    damaged = dataclasses.replace(found, **change)
    with pytest.raises(TrajectoryError, match=message):
        damaged.check(12, 5, 16, 'file')
    with pytest.raises(TrajectoryError):
        next(replay(sampler(), damaged))


def test_an_inpainted_image_of_one_tile_has_a_trajectory_and_a_larger_one_has_none():
    model = build_model().eval()
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[:, :8] = True
    images = torch.rand(2, 3, 16, 16)
    found = inpaint(model, images, mask, num_steps=3).trajectories
    assert torch.equal(found.generated, torch.tensor([True] * 8 + [False] * 8).expand(2, 16))
    assert torch.equal(found.ids[:, 8:], model.tokenize(images)[0][:, 8:])
    larger = torch.rand(1, 3, 16, 40)
    assert inpaint(model, larger, torch.ones(1, 16, 40, dtype=torch.bool), num_steps=3).trajectories is None
    nothing = inpaint(model, images, torch.zeros_like(mask), num_steps=3).trajectories
    assert not nothing.generated.any()
    assert nothing.num_steps == 0
