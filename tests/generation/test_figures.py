# Copyright (c) addp_mm contributors. Apache-2.0.
"""Figures of samples: bytes, token maps, image grids and steps."""

import numpy as np
import pytest
import torch
from helpers.tiny_alternating_model import tiny_model

from addp_mm.generation import AlternatingSampler, Samples, SamplingSchedule, figures


def test_bytes_are_rounded_and_clipped():
    images = torch.tensor([-1.0, 0.5, 2.0]).view(1, 3, 1, 1)
    assert figures.to_uint8(images).tolist() == [[[[0, 128, 255]]]]


def test_non_finite_pixels_are_an_error():
    with pytest.raises(ValueError, match='non-finite'):
        figures.to_uint8(torch.full((1, 3, 2, 2), float('nan')))


def test_code_colors_are_vivid_and_mostly_distinct():
    colors = figures.code_colors(1024)
    spread = colors.max(1).astype(int) - colors.min(1)
    assert spread.min() > 50
    assert len(np.unique(colors, axis=0)) > 1000


def test_token_map_colours_visible_ids_and_hatches_masked_positions():
    ids = torch.tensor([3, 5, 3, 9])
    mask = torch.tensor([False, False, False, True])
    drawn = figures.token_map(ids, mask, (2, 2), 16, cell=4)
    colors = figures.code_colors(16)
    assert drawn.shape == (8, 8, 3)
    assert (drawn[:4, :4] == colors[3]).all()
    assert (drawn[:4, 4:] == colors[5]).all()
    masked = drawn[4:, 4:]
    assert set(np.unique(masked)) == {120, 190}
    assert (masked[..., 0] == masked[..., 1]).all()


def test_image_grid_is_filled_row_by_row():
    tiles = [np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = figures.image_grid(tiles, columns=2, margin=1)
    assert sheet.shape == (7, 9, 3)
    assert (sheet[1:3, 1:4] == 10).all()
    assert (sheet[1:3, 5:8] == 20).all()
    assert (sheet[4:6, 1:4] == 30).all()
    assert (sheet[4:6, 5:8] == 255).all()
    with pytest.raises(ValueError, match='one size'):
        figures.image_grid([tiles[0], np.zeros((3, 3, 3), np.uint8)])


def test_steps_figure_shows_a_map_above_the_pixels_of_each_step():
    model = tiny_model()
    steps = (
        AlternatingSampler(model, model.grid_size, SamplingSchedule(3))
        .run(2, torch.Generator().manual_seed(0), keep_steps=True)
        .steps
    )
    figure = figures.steps_figure(steps, model.grid_size, 16, image=1, side=32)
    tile = figures.enlarge(figures.to_uint8(steps[-1].images)[1], 32)
    height, width = tile.shape[:2]
    assert figure.shape == (2 * height + 6, 4 * width + 10, 3)
    assert (figure[-height - 2 : -2, -width - 2 : -2] == tile).all()
    first_map = figure[2 : 2 + height, 2 : 2 + width]
    assert set(np.unique(first_map)) == {120, 190}
    thinned = figures.steps_figure(steps, model.grid_size, 16, side=32, max_columns=2)
    assert thinned.shape[1] == 2 * width + 6


@pytest.mark.parametrize('channels, shown', [(1, [0, 0, 0]), (2, [0, 1, 1]), (5, [0, 1, 2])])
def test_images_of_any_number_of_channels_are_shown(channels, shown):
    images = torch.rand(2, channels, 4, 4)
    assert np.array_equal(figures.to_uint8(images), figures.to_uint8(images[:, shown]))


def test_samples_as_pillow_images():
    images = torch.rand(2, 3, 4, 5)
    shown = Samples(images, torch.zeros(2, 4, dtype=torch.long)).to_pil()
    assert [(image.mode, image.size) for image in shown] == [('RGB', (5, 4))] * 2
    assert np.array_equal(np.stack([np.asarray(image) for image in shown]), figures.to_uint8(images))
