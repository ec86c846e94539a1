# Copyright (c) addp_mm contributors. Apache-2.0.
"""The alternating sampler: seeds, batches, schedules, inpainting."""

import math

import pytest
import torch
from helpers.tiny_addp import build_model
from helpers.tiny_alternating_model import tiny_model

from addp_mm.generation import AlternatingSampler, image_generators, token_mask


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sampler(model=None, **options):
    model = model or tiny_model()
    return AlternatingSampler(model, model.grid_size, **dict(dict(num_steps=6), **options))


@pytest.mark.parametrize('options', [{}, dict(schedule='linear', top_p=0.7), dict(temperature=2.0, anneal=False)])
def test_same_seed_gives_same_images_for_every_batch_size(options):
    whole = sampler(**options).run(7, seeded())
    for batch_size in (1, 2, 3, 5, 7):
        parts = sampler(**options).run(7, seeded(), batch_size=batch_size)
        assert torch.equal(parts.ids, whole.ids)
        torch.testing.assert_close(parts.images, whole.images, atol=1e-6, rtol=0)
    # fewer images are the first of more
    assert torch.equal(sampler(**options).run(3, seeded()).ids, whole.ids[:3])


def test_another_seed_gives_other_images_and_images_differ():
    first, second = (sampler().run(4, seeded(seed)).ids for seed in (0, 1))
    assert not torch.equal(first, second)
    assert len(first.unique(dim=0)) == 4


def test_global_random_state_is_unchanged():
    before = torch.get_rng_state()
    sampler().run(2, seeded())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize('schedule', ['cosine', 'linear'])
def test_masked_counts_follow_the_formula_and_masks_shrink(schedule):
    num_steps, tokens = 6, 12
    steps = sampler(schedule=schedule).run(3, seeded(), keep_steps=True).steps
    assert [step.index for step in steps] == list(range(num_steps + 1))
    for taken in range(1, num_steps):
        share = math.cos(math.pi / 2 * taken / num_steps) if schedule == 'cosine' else 1 - taken / num_steps
        assert steps[taken].mask.sum(1).tolist() == [max(1, math.ceil(tokens * share))] * 3
    assert steps[0].mask.all()
    assert not steps[-1].mask.any()
    for before, after in zip(steps, steps[1:], strict=False):
        assert not (after.mask & ~before.mask).any()
        assert torch.equal(after.ids[~before.mask], before.ids[~before.mask])
        assert after.confidence[~before.mask].isinf().all()
        assert (after.confidence[before.mask] <= 0).all()


def test_known_tokens_stay_under_a_schedule_that_rises():
    steps = sampler(schedule=lambda step, steps: 0.2 if step == 0 else 0.9).run(2, seeded(), keep_steps=True).steps
    assert [int(step.mask.sum(1)[0]) for step in steps] == [12, 3, 3, 3, 3, 3, 0]


def test_finished_images_are_the_decoded_ids():
    model = tiny_model()
    samples = sampler(model).run(2, seeded())
    expected = model.tokenizer.decode(model.tokenizer.lookup(samples.ids, *model.grid_size))
    torch.testing.assert_close(samples.images, expected)
    assert not samples.images.requires_grad


def test_pixels_between_steps_mix_expected_and_drawn_latents():
    model = tiny_model()
    before, state = sampler(model).run(2, seeded(), keep_steps=True).steps[2:4]
    hard = model.tokenizer.lookup(state.ids, *model.grid_size)
    probabilities = model.predict_tokens(before.images, before.ids, before.mask).softmax(-1)
    soft = (probabilities @ model.tokenizer.codebook).transpose(1, 2).unflatten(2, model.grid_size)
    mask = state.mask.view(2, 1, *model.grid_size)
    torch.testing.assert_close(state.images, model.tokenizer.decode(hard * ~mask + soft * mask))


def test_without_noise_the_most_confident_positions_are_kept():
    state = sampler(temperature=0.0).run(4, seeded(), keep_steps=True).steps[3]
    for row in range(4):
        assert state.confidence[row][state.mask[row]].max() <= state.confidence[row][~state.mask[row]].min()


def test_small_nucleus_draws_the_most_likely_code():
    model = tiny_model()
    start, first = sampler(model, top_p=1e-6).run(3, seeded(), keep_steps=True).steps[:2]
    assert torch.equal(first.ids, model.predict_tokens(start.images, start.ids, start.mask).argmax(-1))


def test_inpainting_keeps_known_ids_and_batches_do_not_matter():
    model = tiny_model()
    images = torch.rand(5, 3, 16, 12, generator=seeded(3))
    mask = torch.rand(5, 12, generator=seeded(4)) < 0.5
    mask[2] = False
    known, _ = model.tokenizer.encode(images)
    whole = sampler(model).inpaint(images, mask, seeded(), keep_steps=True)
    assert torch.equal(whole.ids[~mask], known[~mask])
    assert not torch.equal(whole.ids[mask], known[mask])
    assert torch.equal(whole.steps[0].mask, mask)
    assert whole.steps[1].mask.sum(1).tolist() == [math.ceil(int(n) * math.cos(math.pi / 12)) for n in mask.sum(1)]
    assert torch.equal(sampler(model).inpaint(images, mask, seeded(), batch_size=2).ids, whole.ids)


@pytest.mark.parametrize('build', [tiny_model, lambda: build_model().eval()])
def test_under_autocast_the_tokenizer_keeps_float32(build):
    model = build()
    size = getattr(model, 'grid_size', None) or model.latent_size
    images = torch.rand(2, 3, size[0] * 4, size[1] * 4, generator=seeded(3))
    mask = torch.rand(2, size[0] * size[1], generator=seeded(4)) < 0.5
    logits, plain = [], model.predict_tokens
    model.predict_tokens = lambda *state: logits.append(plain(*state)) or logits[-1]
    with torch.autocast('cpu', torch.bfloat16):
        samples = AlternatingSampler(model, size, num_steps=3).inpaint(images, mask, seeded(), keep_steps=True)
    tokenizer, state = model.tokenizer, samples.steps[1]
    assert torch.equal(samples.ids[~mask], tokenizer.encode(images)[0][~mask])
    assert all(step.images.dtype == torch.float32 for step in samples.steps)
    hard = tokenizer.lookup(state.ids, *size)
    soft = (logits[0].float().softmax(-1) @ tokenizer.codebook).transpose(1, 2).unflatten(2, size)
    expected = tokenizer.decode(torch.where(state.mask.view(2, 1, *size), soft, hard)).clamp(0, 1)
    torch.testing.assert_close(state.images, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        samples.images, tokenizer.decode(tokenizer.lookup(samples.ids, *size)).clamp(0, 1), atol=1e-6, rtol=0
    )


def test_steps_of_batches_are_joined_field_by_field():
    whole = sampler().run(3, seeded(), keep_steps=True).steps
    parts = sampler().run(3, seeded(), batch_size=2, keep_steps=True).steps
    for one, two in zip(whole, parts, strict=True):
        assert one.index == two.index
        for name in ('ids', 'mask', 'images', 'confidence', 'num_masked'):
            torch.testing.assert_close(getattr(two, name), getattr(one, name), atol=1e-5, rtol=0)


def test_progress_counts_every_image_at_every_step():
    calls = []
    sampler().run(5, seeded(), batch_size=2, progress=calls.append)
    assert calls == [2] * 6 + [2] * 6 + [1] * 6


def test_each_image_has_a_stream_of_its_own():
    draws = [float(torch.rand((), generator=generator)) for generator in image_generators(64, seeded())]
    assert len(set(draws)) == 64
    assert 0.3 < sum(draws) / 64 < 0.7


def test_token_mask_covers_every_touched_token():
    pixels = torch.zeros(1, 8, 8, dtype=torch.bool)
    pixels[0, 3:5, 2] = True
    assert token_mask(pixels, 4).tolist() == [[True, False, True, False]]
    with pytest.raises(ValueError, match='multiples of 3'):
        token_mask(pixels, 3)


@pytest.mark.parametrize(
    'options',
    [
        dict(num_steps=0),
        dict(schedule='square'),
        dict(temperature=-1.0),
        dict(temperature=math.nan),
        dict(top_p=0.0),
        dict(top_p=1.5),
    ],
)
def test_bad_options_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        sampler(**options)


def test_a_model_in_training_mode_is_refused():
    model = tiny_model().train()
    with pytest.raises(ValueError, match='eval'):
        sampler(model).run(1, seeded())


def test_non_finite_weights_are_refused():
    model = tiny_model()
    torch.nn.init.constant_(model.head.bias, math.nan)
    with pytest.raises(ValueError, match='non-finite logits .NaN or Inf.: its weights are non-finite'):
        AlternatingSampler(model, model.grid_size, num_steps=2).run(1, torch.Generator())


def test_a_mask_of_another_grid_is_refused():
    with pytest.raises(ValueError, match=r'\(B, 12\)'):
        sampler().inpaint(torch.rand(1, 3, 16, 12), torch.ones(1, 9, dtype=torch.bool), seeded())
