# Copyright (c) addp_mm contributors. Apache-2.0.
"""Figures of samples as arrays: image grids, token maps and the alternating steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

MARGIN = 2
WHITE = 255


def to_uint8(images: torch.Tensor | np.ndarray) -> np.ndarray:
    """Convert images in [0, 1] to bytes.

    Args:
        images: (B, C, H, W); values outside [0, 1] are clipped. See :func:`three_channels` for
            other numbers of channels than three.

    Returns:
        uint8 array (B, H, W, 3), RGB.

    Raises:
        ValueError: The shape is wrong, or a value is non-finite.
    """
    array = images.detach().float().cpu().numpy() if isinstance(images, torch.Tensor) else np.asarray(images)
    if array.ndim != 4 or array.shape[1] < 1:
        raise ValueError(f'images must be (B, C, H, W), got {tuple(array.shape)}')
    array = three_channels(array)
    if not np.isfinite(array).all():
        raise ValueError('images have non-finite values (NaN or Inf)')
    return np.rint(array.clip(0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def three_channels(images: np.ndarray) -> np.ndarray:
    """Three channels of images with any number of channels, to show them.

    Args:
        images: (B, C, H, W).

    Returns:
        (B, 3, H, W): the first three channels. If there are fewer, the last one is repeated.
    """
    return images[:, [min(channel, images.shape[1] - 1) for channel in range(3)]]


def enlarge(image: np.ndarray, side: int) -> np.ndarray:
    """Enlarge by a whole factor, without smoothing, until the longer side has ``side`` pixels.

    Args:
        image: uint8 (H, W, 3).
        side: Pixels.

    Returns:
        uint8 (factor * H, factor * W, 3).
    """
    factor = max(1, math.ceil(side / max(image.shape[:2])))
    return _repeat(image, factor)


def code_colors(codebook_size: int) -> np.ndarray:
    """One fixed colour for each code, uint8 (codebook_size, 3).

    Hues follow the golden ratio, so that neighbouring ids differ visibly. No colour is grey, which
    marks masked positions.
    """
    index = np.arange(codebook_size)
    hue = (index * 0.6180339887498949) % 1.0
    saturation = 0.55 + 0.4 * ((index // 7) % 4) / 3
    value = 0.6 + 0.4 * ((index // 29) % 5) / 4
    sextant = (np.array([[5.0], [3.0], [1.0]]) + hue * 6) % 6
    ramp = np.clip(np.minimum(sextant, 4 - sextant), 0, 1)
    return np.rint((value - value * saturation * ramp).T * 255).astype(np.uint8)


def token_map(
    ids: torch.Tensor, mask: torch.Tensor, grid_size: tuple[int, int], codebook_size: int, cell: int = 8
) -> np.ndarray:
    """Token ids of one image as coloured cells; masked positions are grey and hatched.

    Args:
        ids: int64 (L,), row-major.
        mask: bool (L,), True where masked.
        grid_size: (h, w) with h * w = L.
        codebook_size: Number of codes.
        cell: Side of a cell in pixels. Defaults to 8.

    Returns:
        uint8 (h * cell, w * cell, 3).

    Raises:
        ValueError: ``ids`` or ``mask`` does not fit the grid.
    """
    height, width = grid_size
    if ids.shape != (height * width,) or mask.shape != ids.shape:
        raise ValueError(
            f'ids and mask must be ({height * width},) for grid {grid_size}, '
            f'got {tuple(ids.shape)} and {tuple(mask.shape)}'
        )
    masked = mask.cpu().numpy().reshape(height, width)
    codes = np.where(masked, 0, ids.cpu().numpy().reshape(height, width))
    cells = _repeat(code_colors(codebook_size)[codes], cell)
    rows, columns = np.indices(cells.shape[:2])
    hatch = np.where((rows + columns) % 4 == 0, 120, 190).astype(np.uint8)
    return np.where(_repeat(masked, cell)[..., None], hatch[..., None], cells)


def image_grid(images: Sequence[np.ndarray], columns: int | None = None, margin: int = MARGIN) -> np.ndarray:
    """Arrange images of one size in rows, on white.

    Args:
        images: uint8 arrays (H, W, 3).
        columns: Images in a row. Defaults to None: as square as possible.
        margin: Pixels between the images and around them. Defaults to 2.

    Returns:
        uint8 array (height, width, 3).

    Raises:
        ValueError: There are no images, or their sizes differ.
    """
    if len(images) == 0:
        raise ValueError('a grid needs at least one image')
    sizes = {image.shape for image in images}
    if len(sizes) > 1:
        raise ValueError(f'all images of a grid must have one size, got {sorted(sizes)}')
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    height, width = images[0].shape[:2]
    sheet = np.full((rows * (height + margin) + margin, columns * (width + margin) + margin, 3), WHITE, np.uint8)
    for index, image in enumerate(images):
        top = margin + index // columns * (height + margin)
        left = margin + index % columns * (width + margin)
        sheet[top : top + height, left : left + width] = image
    return sheet


def steps_figure(
    steps: Sequence,
    grid_size: tuple[int, int],
    codebook_size: int,
    image: int = 0,
    side: int = 96,
    max_columns: int = 12,
) -> np.ndarray:
    """The alternating steps of one image: one column for each step, the token map above the pixels.

    Args:
        steps: :class:`~addp_mm.generation.SamplingStep` in the order they were taken.
        grid_size: (h, w) in tokens.
        codebook_size: Number of codes.
        image: Index of the image in the batch. Defaults to 0.
        side: Minimum of the longer side of each tile in pixels. Defaults to 96.
        max_columns: If there are more steps, evenly spaced ones are shown, always with the first
            and the last. Defaults to 12.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ValueError: There are no steps.
    """
    if len(steps) == 0:
        raise ValueError('the figure needs at least one step')
    count = min(len(steps), max(2, max_columns))
    chosen = [steps[round(index)] for index in np.linspace(0, len(steps) - 1, count)]
    pixels = [enlarge(to_uint8(step.images[image : image + 1])[0], side) for step in chosen]
    height, width = pixels[0].shape[:2]
    maps = [token_map(step.ids[image], step.mask[image], grid_size, codebook_size) for step in chosen]
    maps = [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.NEAREST)) for one in maps]
    return image_grid(maps + pixels, columns=count)


def _repeat(cells: np.ndarray, factor: int) -> np.ndarray:
    """Repeat every cell of (H, W, …) ``factor`` times in height and width."""
    return cells.repeat(factor, axis=0).repeat(factor, axis=1)
