# Copyright (c) addp_mm contributors. Apache-2.0.
"""Inpainting of images of any size in tiles: coverage, exactness, equality with the sampler."""

import math

import pytest
import torch
from helpers.tiny_addp import build_model
from helpers.tiny_alternating_model import tiny_conditional_model, tiny_model

from addp_mm.apis import inpaint
from addp_mm.errors import ConfigError
from addp_mm.generation import (
    AlternatingSampler,
    Guidance,
    SamplingSchedule,
    TiledInpainter,
    image_generators,
    plan_tiles,
    token_mask,
)

STRIDE, GRID = 4, (4, 3)
STEPS = SamplingSchedule(3, temperature=1.0)


@pytest.fixture(scope='module')
def model():
    return build_model().eval()


def streams(count, seed=0):
    return image_generators(count, torch.Generator().manual_seed(seed))


def inpainter(model=None, overlap=None, grid=GRID, guidance=None):
    return TiledInpainter(AlternatingSampler(model or tiny_model(), grid, STEPS, guidance), STRIDE, overlap)


def random_images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def random_mask(generator, height, width):
    """A few rectangles; sometimes nothing or all."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    for _ in range(int(torch.randint(0, 4, (), generator=generator))):
        top, left = (int(torch.randint(0, side, (), generator=generator)) for side in (height, width))
        bottom, right = (
            int(torch.randint(start + 1, side + 1, (), generator=generator))
            for start, side in ((top, height), (left, width))
        )
        mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize('seed', range(40))
def test_each_masked_token_is_new_in_exactly_one_tile(seed):
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (int(torch.randint(least, 24, (), generator=generator)) for least in GRID)
    overlap = [None, 0, 1, 2][seed % 4]
    mask = random_mask(generator, rows, columns)
    covered = torch.zeros(rows, columns, dtype=torch.int64)
    tiles = plan_tiles(mask, GRID, overlap)
    for tile in tiles:
        assert tile.new.shape == GRID
        assert 0 <= tile.top <= rows - GRID[0]
        assert 0 <= tile.left <= columns - GRID[1]
        covered[tile.window()] += tile.new
    assert torch.equal(covered, mask.long())
    if (rows, columns) != GRID:
        assert all(tile.new.any() for tile in tiles)


def test_a_small_region_is_in_the_centre_of_one_tile_and_others_have_their_own():
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[17:21, 15:19] = True  # across the borders of a fixed grid of 8x8 tiles
    mask[30, 38] = True
    tiles = [(tile.top, tile.left, int(tile.new.sum())) for tile in plan_tiles(mask, (8, 8))]
    assert tiles == [(27, 32, 1), (15, 13, 16)]


def test_new_parts_grow_from_the_known_ones():
    mask = torch.ones(8, 24, dtype=torch.bool)
    mask[:, 16:] = False  # the left two thirds are new
    tiles = plan_tiles(mask, (8, 8))
    assert [tile.left for tile in tiles] == [12, 8, 4, 0]
    assert all(int((~tile.new).sum()) == 4 * 8 for tile in tiles)


def test_a_full_mask_starts_at_the_first_corner_and_overlaps_after_that():
    tiles = plan_tiles(torch.ones(8, 12, dtype=torch.bool), (8, 8), overlap=2)
    assert [(tile.left, int(tile.new.sum())) for tile in tiles] == [(0, 64), (4, 32)]


def test_nothing_to_generate_is_no_tile_but_one_for_an_image_of_the_size_of_a_tile():
    assert plan_tiles(torch.zeros(8, 9, dtype=torch.bool), (8, 8)) == []
    (only,) = plan_tiles(torch.zeros(8, 8, dtype=torch.bool), (8, 8))
    assert not only.new.any()


@pytest.mark.parametrize('overlap', [-1, 3, 8])
def test_an_overlap_of_a_whole_tile_or_below_zero_is_refused(overlap):
    with pytest.raises(ConfigError, match=f'overlap must be from 0 to 2 tokens, .* 4x3; got {overlap}'):
        plan_tiles(torch.ones(8, 8, dtype=torch.bool), GRID, overlap)


def test_an_image_of_the_models_size_equals_the_samplers_inpainting(model):
    images, mask = random_images(3, 3, 16, 16), torch.zeros(3, 16, 16, dtype=torch.bool)
    mask[0, 3:9, 2:8] = True
    mask[1] = True
    sampler = AlternatingSampler(model, (4, 4), STEPS)
    tokens = token_mask(mask, 4)
    expected = sampler.inpaint(images, tokens, torch.Generator().manual_seed(7), keep_steps=True)
    options = dict(seed=7, num_steps=3, temperature=1.0)
    decoded = inpaint(model, images, mask, paste=False, keep_steps=True, **options)
    assert torch.equal(decoded.ids, expected.ids)
    assert torch.equal(decoded.images, expected.images)
    assert len(decoded.steps) == 4
    assert torch.equal(decoded.steps[1].ids, expected.steps[1].ids)
    pasted = inpaint(model, images, mask, **options)
    assert torch.equal(pasted.images, torch.where(mask[:, None], expected.images, images))


@pytest.mark.parametrize('size', [(16, 12), (5, 7), (30, 12), (9, 41), (33, 50), (64, 1)])
@pytest.mark.parametrize('seed', range(4))
def test_pixels_outside_the_mask_are_kept_exactly(size, seed):
    generator = torch.Generator().manual_seed(seed)
    images = random_images(2, 3, *size, seed=seed)
    mask = torch.stack([random_mask(generator, *size), torch.rand(size, generator=generator) < 0.02])
    result = inpainter().run(images, mask, streams(2)).images
    assert torch.equal(result.ne(images).any(1), mask)  # and every masked pixel is a new one


def test_masked_pixels_come_from_the_tile_that_generates_their_token():
    images, mask = random_images(1, 3, 16, 40), torch.zeros(1, 16, 40, dtype=torch.bool)
    mask[..., 12:] = True
    tiled, sampler = inpainter(overlap=1), inpainter().sampler
    (generator,) = streams(1)
    result = tiled.run(images, mask, streams(1))
    seen = images.clone()
    for tile in tiled.plan(mask)[0]:
        rows, columns = tile.window(STRIDE)
        pixels, tokens = seen[..., rows, columns], tile.new.flatten()[None]
        known = result.ids.view(1, 4, 10)[(0, *tile.window())].flatten()[None]
        own = sampler.complete(known, tokens, [generator])
        assert torch.equal(own.ids, known)
        new = tile.new.repeat_interleave(STRIDE, 0).repeat_interleave(STRIDE, 1)
        seen[..., rows, columns] = torch.where(new, own.images, pixels)
    assert torch.equal(result.images, seen)


def test_visible_ids_are_those_of_the_tokenizer_and_ids_outside_the_tiles_are_unknown():
    model, images, mask = tiny_model(), random_images(1, 3, 32, 36), torch.zeros(1, 32, 36, dtype=torch.bool)
    mask[:, 14:17, 10:11] = True
    tiled = inpainter(model)
    ids = tiled.run(images, mask, streams(1)).ids.view(8, 9)
    (tile,) = tiled.plan(mask)[0]
    window = images[(0, slice(None), *tile.window(STRIDE))]
    expected = model.tokenize(window[None])[0].view(GRID)
    assert torch.equal(ids[tile.window()][~tile.new], expected[~tile.new])
    ids[tile.window()] = -1
    assert (ids == -1).all()


def test_known_ids_stay_from_tile_to_tile():
    images, mask = random_images(1, 3, 16, 60), torch.ones(1, 16, 60, dtype=torch.bool)
    mask[..., :12] = False
    tiled, model = inpainter(overlap=2), tiny_model()
    tiles = tiled.plan(mask)[0]
    assert [tile.left for tile in tiles] == list(range(1, 13))  # each sees two columns
    ids = tiled.run(images, mask, streams(1)).ids.view(4, 15)
    assert (ids[:, 1:] >= 0).all()
    assert torch.equal(ids[:, 1:3], model.tokenize(images[..., 4:16])[0].view(4, 3)[:, :2])


def test_the_reconstruction_changes_known_pixels_of_tiles_only():
    images, mask = random_images(1, 3, 32, 36), torch.zeros(1, 32, 36, dtype=torch.bool)
    mask[:, 14:17, 10:11] = True
    tiled = inpainter()
    pasted = tiled.run(images, mask, streams(1)).images
    decoded = tiled.run(images, mask, streams(1), paste=False).images
    (tile,) = tiled.plan(mask)[0]
    inside = torch.zeros(32, 36, dtype=torch.bool)
    inside[tile.window(STRIDE)] = True
    assert torch.equal(decoded.ne(images).any(1)[0], inside)
    assert torch.equal(decoded[0][:, mask[0]], pasted[0][:, mask[0]])


def test_batches_of_any_size_give_the_same_ids():
    images = random_images(5, 3, 24, 27)
    mask = torch.stack([random_mask(torch.Generator().manual_seed(seed), 24, 27) for seed in range(5)])
    whole = inpainter().run(images, mask, streams(5))
    parts = inpainter().run(images, mask, streams(5), batch_size=2)
    assert torch.equal(parts.ids, whole.ids)
    torch.testing.assert_close(parts.images, whole.images, atol=1e-5, rtol=0)
    for index in range(5):
        alone = inpainter().run(images[index : index + 1], mask[index : index + 1], [streams(5)[index]])
        assert torch.equal(alone.ids[0], whole.ids[index])


def test_padding_does_not_show_what_is_below_the_mask():
    full = torch.ones(1, 9, 7, dtype=torch.bool)
    one, other = (inpainter().run(random_images(1, 3, 9, 7, seed=seed), full, streams(1)) for seed in (0, 1))
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.ids, other.ids)


def test_more_steps_than_masked_tokens_and_full_masks_work(model):
    images, mask = random_images(1, 3, 20, 24), torch.zeros(1, 20, 24, dtype=torch.bool)
    mask[:, 0, 0] = True
    one = inpaint(model, images, mask, num_steps=16)
    assert torch.equal(one.images.ne(images).any(1), mask)
    everything = inpaint(model, images, torch.ones_like(mask), num_steps=16)
    assert everything.images.ne(images).any(1).all()


def test_masks_over_tokens_of_an_image_with_cut_tokens(model):
    images, tokens = random_images(1, 3, 18, 21), torch.zeros(1, 5 * 6, dtype=torch.bool)
    tokens[0, -1] = True
    changed = inpaint(model, images, tokens, num_steps=2).images.ne(images).any(1)[0]
    assert changed[16:, 20:].all()
    assert int(changed.sum()) == 2


def test_labels_and_guidance_reach_each_tile():
    images, mask = random_images(2, 3, 16, 30), torch.ones(2, 16, 30, dtype=torch.bool)
    mask[1, :, 8:] = False  # one tile, where the first image has several

    def ids(labels, guidance=None):
        tiled = inpainter(tiny_conditional_model(), guidance=guidance)
        return tiled.run(images, mask, streams(2), labels=labels).ids

    plain, first = ids(None), ids([1, -1])
    assert torch.equal(plain, ids([-1, -1]))
    assert not torch.equal(first[0], plain[0])
    assert torch.equal(first[1], plain[1])
    assert not torch.equal(ids([1, -1], Guidance(3.0))[0], first[0])
    with pytest.raises(ConfigError, match='whole number for each of 2 image'):
        ids([1, 2, 0])


def test_the_progress_counts_the_tiles_of_each_step():
    images, mask = random_images(2, 3, 16, 40), torch.ones(2, 16, 40, dtype=torch.bool)
    mask[1] = False
    counts = []
    tiled = inpainter()
    tiled.run(images, mask, streams(2), progress=counts.append)
    assert sum(counts) == STEPS.num_steps * len(tiled.plan(mask)[0])
    assert tiled.plan(mask)[1] == []


def test_steps_are_kept_of_one_tile_only(model):
    with pytest.raises(ValueError, match='keep_steps is for images of at most 16x16, which are one tile; got 16x20'):
        inpaint(model, random_images(1, 3, 16, 20), torch.ones(1, 16, 20), keep_steps=True, num_steps=1)
    kept = inpaint(model, random_images(1, 3, 10, 9), torch.ones(1, 10, 9), keep_steps=True, num_steps=2)
    assert len(kept.steps) == 3
    assert math.prod(kept.steps[0].mask.shape) == 16


@pytest.mark.parametrize('order', ['confidence', 'halton'])
def test_a_tile_takes_the_same_number_of_draws_for_every_mask(order):
    sampler = AlternatingSampler(tiny_model(), GRID, SamplingSchedule(3, order=order))
    states = []
    for masked in (1, 12):
        (generator,) = streams(1)
        mask = torch.arange(12)[None] < masked
        sampler.complete(torch.zeros(1, 12, dtype=torch.int64), mask, [generator])
        states.append(generator.get_state())
    assert torch.equal(*states)
