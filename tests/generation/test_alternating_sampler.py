# Copyright (c) addp_mm contributors. Apache-2.0.
"""The alternating sampler: seeds, batches, schedules, inpainting."""

import math

import pytest
import torch
from helpers.tiny_addp import build_model
from helpers.tiny_alternating_model import tiny_conditional_model, tiny_model

from addp_mm.diffusion import halton_order
from addp_mm.errors import ConfigError, UserError
from addp_mm.generation import AlternatingSampler, SamplingSchedule, image_generator, image_generators, token_mask


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sampler(model=None, **options):
    model = model or tiny_model()
    return AlternatingSampler(model, model.grid_size, SamplingSchedule(**dict(dict(num_steps=6), **options)))


@pytest.mark.parametrize('options', [{}, dict(ratio='linear', top_p=0.7), dict(temperature=2.0, anneal=False)])
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


@pytest.mark.parametrize('ratio', ['cosine', 'linear'])
def test_masked_counts_follow_the_formula_and_masks_shrink(ratio):
    num_steps, tokens = 6, 12
    steps = sampler(ratio=ratio).run(3, seeded(), keep_steps=True).steps
    assert [step.index for step in steps] == list(range(num_steps + 1))
    for taken in range(1, num_steps):
        share = math.cos(math.pi / 2 * taken / num_steps) if ratio == 'cosine' else 1 - taken / num_steps
        assert steps[taken].mask.sum(1).tolist() == [max(1, math.ceil(tokens * share))] * 3
    assert steps[0].mask.all()
    assert not steps[-1].mask.any()
    for before, after in zip(steps, steps[1:], strict=False):
        assert not (after.mask & ~before.mask).any()
        assert torch.equal(after.ids[~before.mask], before.ids[~before.mask])
        assert after.confidence[~before.mask].isinf().all()
        assert (after.confidence[before.mask] <= 0).all()


def test_a_function_gives_the_shares():
    steps = sampler(ratio=lambda step, steps: 0.9 - 0.1 * step).run(2, seeded(), keep_steps=True).steps
    assert [int(step.mask.sum(1)[0]) for step in steps] == [12, 11, 10, 9, 8, 6, 0]


@pytest.mark.parametrize('num_steps', [3, 6, 12])
def test_halton_order_keeps_its_next_positions_in_every_image(num_steps):
    order = halton_order(*tiny_model().grid_size)
    steps = sampler(order='halton', num_steps=num_steps).run(2, seeded(), keep_steps=True).steps
    for taken, state in enumerate(steps):
        kept = 12 - max(1, math.ceil(12 * math.cos(math.pi / 2 * taken / num_steps)))
        kept = 12 if taken == num_steps else kept
        expected = torch.ones(12, dtype=torch.bool)
        expected[order[:kept]] = False
        assert torch.equal(state.mask, expected.expand(2, 12))
    # the order needs no noise on the confidence
    assert torch.equal(sampler(order='halton', temperature=0.0, num_steps=num_steps).run(2, seeded()).ids, state.ids)


def test_halton_order_skips_known_positions():
    model, images = tiny_model(), torch.rand(2, 3, 16, 12, generator=seeded(3))
    order, mask = halton_order(*model.grid_size), torch.zeros(2, 12, dtype=torch.bool)
    mask[0, order[[1, 4, 5, 9]]] = True
    mask[1, order[2:]] = True
    steps = (
        sampler(model, order='halton', ratio='linear', num_steps=4)
        .inpaint(images, mask, seeded(), keep_steps=True)
        .steps
    )
    found = [[sorted(order.tolist().index(p) for p in row.nonzero()) for row in state.mask] for state in steps]
    assert [one for one, _ in found] == [[1, 4, 5, 9], [4, 5, 9], [5, 9], [9], []]
    assert [len(other) for _, other in found] == [10, 8, 5, 3, 0]
    assert all(other == list(range(12 - len(other), 12)) for _, other in found)


def test_top_k_1_draws_the_most_likely_code():
    model = tiny_model()
    start, first = sampler(model, top_k=1).run(3, seeded(), keep_steps=True).steps[:2]
    assert torch.equal(first.ids, model.predict_tokens(start.images, start.ids, start.mask).argmax(-1))
    assert torch.equal(sampler(model, top_k=16).run(3, seeded()).ids, sampler(model).run(3, seeded()).ids)


def test_more_steps_than_tokens_are_refused_but_not_more_than_masked_tokens():
    assert sampler(num_steps=12).run(1, seeded()).ids.shape == (1, 12)
    with pytest.raises(ConfigError, match=r'num_steps must be at most 12, .* \(4x3\), got 13'):
        sampler(num_steps=13)
    model, images = tiny_model(), torch.rand(4, 3, 16, 12, generator=seeded(3))
    mask = torch.arange(12).expand(4, 12) < torch.tensor([[0], [1], [2], [12]])
    known, _ = model.tokenizer.encode(images)
    for order in ('confidence', 'halton'):
        samples = sampler(model, num_steps=12, order=order).inpaint(images, mask, seeded(), keep_steps=True)
        assert torch.equal(samples.ids[~mask], known[~mask])
        assert not samples.steps[-1].mask.any()


def test_finished_images_are_the_decoded_ids():
    model = tiny_model()
    samples = sampler(model).run(2, seeded())
    expected = model.tokenizer.decode(model.tokenizer.lookup(samples.ids, *model.grid_size))
    torch.testing.assert_close(samples.images, expected)
    assert not samples.images.requires_grad


@pytest.mark.parametrize('labels', [None, [0, 2, 0, -1]])
def test_images_without_known_tokens_share_the_pixels_of_their_start(labels):
    """The pixels that each image would get alone; each class is computed once."""
    model, sizes = tiny_conditional_model(), []
    sampler = AlternatingSampler(model, model.grid_size, SamplingSchedule(2))
    classes = None if labels is None else torch.tensor(labels)
    model.tokenizer.decoder.register_forward_hook(lambda _, given, out: sizes.append(len(out)))
    images = sampler.start(*sampler.blank(4), classes).images
    assert sizes == [1 if labels is None else 3]
    assert images.shape == (4, 3, 16, 12)
    for row in range(4):
        alone = sampler.start(*sampler.blank(1), None if classes is None else classes[row : row + 1]).images
        torch.testing.assert_close(images[row : row + 1], alone, atol=1e-6, rtol=0)
    # one known token: every image has its own start
    ids, mask = sampler.blank(4)
    mask[0, 0] = False
    sampler.start(ids, mask, classes)
    assert sizes[-1] == 4


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
def test_under_autocast_ids_and_finished_pixels_keep_float32(build):
    model = build()
    size = getattr(model, 'grid_size', None) or model.latent_size
    images = torch.rand(2, 3, size[0] * 4, size[1] * 4, generator=seeded(3))
    mask = torch.rand(2, size[0] * size[1], generator=seeded(4)) < 0.5
    logits, plain = [], model.predict_tokens
    model.predict_tokens = lambda *state: logits.append(plain(*state)) or logits[-1]
    with torch.autocast('cpu', torch.bfloat16):
        samples = AlternatingSampler(model, size, SamplingSchedule(3)).inpaint(images, mask, seeded(), keep_steps=True)
    tokenizer, state = model.tokenizer, samples.steps[1]
    assert torch.equal(samples.ids[~mask], tokenizer.encode(images)[0][~mask])
    assert all(step.images.dtype == torch.float32 for step in samples.steps)
    hard = tokenizer.lookup(state.ids, *size)
    soft = (logits[0].float().softmax(-1) @ tokenizer.codebook).transpose(1, 2).unflatten(2, size)
    with torch.autocast('cpu', torch.bfloat16):  # as the model decodes there
        expected = model.decode(torch.where(state.mask.view(2, 1, *size), soft, hard)).clamp(0, 1)
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


def test_one_image_has_the_stream_of_its_index():
    for seed in (0, 7, -1, 2**63):
        many = image_generators(5, seeded(seed))
        assert [image_generator(seed, i).initial_seed() for i in range(5)] == [one.initial_seed() for one in many]
    # pinned: images of a run that is continued by a later version stay the same
    assert [image_generator(3, i).initial_seed() for i in (0, 1, 49999)] == [303761048, 2958196809, 652961591]
    for index in (-1, 2**32):
        with pytest.raises(ValueError, match=f'index of an image must be from 0 to .* got {index}'):
            image_generator(0, index)


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


def test_a_model_in_training_mode_is_refused():
    model = tiny_model().train()
    with pytest.raises(ValueError, match='eval'):
        sampler(model).run(1, seeded())


def test_non_finite_weights_are_refused():
    model = tiny_model()
    torch.nn.init.constant_(model.head.bias, math.nan)
    with pytest.raises(UserError, match='non-finite logits .NaN or Inf.: its weights are non-finite'):
        AlternatingSampler(model, model.grid_size, SamplingSchedule(2)).run(1, torch.Generator())


def test_a_mask_of_another_grid_is_refused():
    with pytest.raises(ValueError, match=r'\(B, 12\)'):
        sampler().inpaint(torch.rand(1, 3, 16, 12), torch.ones(1, 9, dtype=torch.bool), seeded())
