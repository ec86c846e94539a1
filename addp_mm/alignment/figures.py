# Copyright (c) addp_mm contributors. Apache-2.0.
"""Figures of scored trajectories, and of the samples that were selected."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageColor
from torch import Tensor

from addp_mm.generation.figures import enlarge, image_grid
from addp_mm.generation.trajectories.trajectories import Trajectories
from addp_mm.report.palette import COLOURS

#: The colour of a token of weight 1, and of frames around rejected images; and that of chosen ones.
REJECTED, CHOSEN = (np.array(ImageColor.getrgb(COLOURS[index]), np.float64) for index in (4, 0))
_SIDE = 96
_MASKED, _FRAME = 224, 40  # greys of masked positions, and of the frame of a token


def heat_map(image: np.ndarray, weights: Tensor, grid_size: tuple[int, int], side: int = _SIDE) -> np.ndarray:
    """Show the weight of each token as red over the grey image.

    Args:
        image: uint8 (H, W, 3).
        weights: From 0, not coloured, to 1, all red, (L,): 1 − score of a rejected image.
        grid_size: (h, w) with h * w = L.
        side: Minimum of the longer side in pixels. Defaults to 96.

    Returns:
        uint8 (factor * H, factor * W, 3).
    """
    pixels = enlarge(image, side).astype(np.float64)
    grey = pixels.mean(2, keepdims=True).repeat(3, 2)
    strength = _over_pixels(weights, grid_size, pixels.shape[:2])[..., None]
    return np.rint((1 - strength) * grey + strength * REJECTED).astype(np.uint8)


def steps_heat_map(
    trajectory: Trajectories, weights: Tensor, grid_size: tuple[int, int], side: int = _SIDE
) -> np.ndarray:
    """Show after each step which tokens were kept so far, red by their weights.

    Args:
        trajectory: Of one image.
        weights: See :func:`heat_map`, (L,).
        grid_size: See :func:`heat_map`.
        side: Of a tile, in pixels. Defaults to 96.

    Returns:
        uint8 (height, width, 3), one tile for each step. Masked positions are grey, and the tokens
        of the step have a dark frame.
    """
    kept_at, size = trajectory.kept_at[0], (side, side * grid_size[1] // grid_size[0])
    strength = _over_pixels(weights, grid_size, size)[..., None]
    colours = 255 * (1 - strength) + strength * REJECTED
    step_of = _over_pixels(kept_at, grid_size, size)
    border = _borders(grid_size, size)
    tiles = []
    for step in range(trajectory.num_steps):
        tile = np.where(step_of[..., None] > step, _MASKED, colours)
        tile[(step_of == step) & border] = _FRAME
        tiles.append(np.rint(tile).astype(np.uint8))
    return image_grid(tiles, columns=len(tiles))


def contact_sheet(
    chosen: Sequence[np.ndarray], rejected: Sequence[np.ndarray], pairs_in_a_row: int = 6, frame: int = 3
) -> np.ndarray:
    """Pairs of images side by side: the chosen one in a blue frame, the rejected one in a red one.

    Args:
        chosen: uint8 (H, W, 3), of one size.
        rejected: As many.
        pairs_in_a_row: Defaults to 6.
        frame: Width of a frame in pixels. Defaults to 3.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ValueError: There are no pairs, or more images on one side.
    """
    tiles = []
    for better, worse in zip(chosen, rejected, strict=True):
        tiles += [framed(better, CHOSEN, frame), framed(worse, REJECTED, frame)]
    return image_grid(tiles, columns=min(2 * pairs_in_a_row, max(2, len(tiles))))


def framed(image: np.ndarray, colour: np.ndarray, frame: int) -> np.ndarray:
    """An image, uint8 (H, W, 3), inside a frame of a colour that is so many pixels wide."""
    height, width = image.shape[:2]
    result = np.empty((height + 2 * frame, width + 2 * frame, 3), np.uint8)
    result[:] = np.rint(colour)
    result[frame : frame + height, frame : frame + width] = image
    return result


def _borders(grid_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Pixels at the border of their token, bool (height, width)."""
    numbers = _over_pixels(torch.arange(grid_size[0] * grid_size[1]), grid_size, size)
    padded = np.pad(numbers, 1, constant_values=-1)
    beside = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.any([other != numbers for other in beside], axis=0)


def _over_pixels(values: Tensor, grid_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Numbers of tokens (L,) over pixels, float64 (height, width)."""
    cells = Image.fromarray(values.reshape(grid_size).float().numpy(), mode='F')
    return np.asarray(cells.resize(size[::-1], Image.Resampling.NEAREST), np.float64)
