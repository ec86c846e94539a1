# Copyright (c) addp_mm contributors. Apache-2.0.
"""Pictures of samples as plain arrays: grids, token maps and strips of the alternating steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

MARGIN = 2
PAPER = 255


def to_uint8(images: torch.Tensor | np.ndarray) -> np.ndarray:
    """Images in [0, 1] as bytes.

    Args:
        images: (B, C, H, W), values outside [0, 1] are clipped. Of other than three channels
            :func:`three_channels` are shown.

    Returns:
        uint8 array (B, H, W, 3), RGB.

    Raises:
        ValueError: If the shape is another or a value is not finite.
    """
    array = images.detach().float().cpu().numpy() if isinstance(images, torch.Tensor) else np.asarray(images)
    if array.ndim != 4 or array.shape[1] < 1:
        raise ValueError(f'images must be (B, C, H, W), got {tuple(array.shape)}')
    array = array if array.shape[1] == 3 else three_channels(array)
    if not np.isfinite(array).all():
        raise ValueError('images hold values that are not finite')
    return np.rint(array.clip(0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def three_channels(images: torch.Tensor | np.ndarray) -> torch.Tensor | np.ndarray:
    """What can be shown of images of any number of channels.

    Args:
        images: (B, C, H, W).

    Returns:
        (B, 3, H, W): the first three channels; the last one is repeated where there are fewer.
    """
    return images[:, [min(channel, images.shape[1] - 1) for channel in range(3)]]


def enlarge(picture: np.ndarray, side: int) -> np.ndarray:
    """Enlarge by a whole factor, without smoothing, until the longer side reaches ``side`` pixels.

    Args:
        picture: uint8 (H, W, 3).
        side: Pixels that the longer side should have at least.
    """
    factor = max(1, math.ceil(side / max(picture.shape[:2])))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def code_colors(codebook_size: int) -> np.ndarray:
    """One fixed colour for each code, uint8 (codebook_size, 3).

    Hues follow the golden ratio, so that neighbouring ids do not look alike; no colour is grey,
    which stands for masked places.
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
    """The token ids of one image as coloured cells; masked places are grey and hatched.

    Args:
        ids: int64 (L,), row-major.
        mask: bool (L,), True = masked.
        grid_size: (h, w) with h·w = L.
        codebook_size: Number of codes.
        cell: Pixels of a cell's side.

    Returns:
        uint8 (h·cell, w·cell, 3).
    """
    height, width = grid_size
    if ids.shape != (height * width,) or mask.shape != ids.shape:
        raise ValueError(
            f'ids and mask must be ({height * width},) for grid {grid_size}, '
            f'got {tuple(ids.shape)} and {tuple(mask.shape)}'
        )
    masked = mask.cpu().numpy().reshape(height, width)
    codes = np.where(masked, 0, ids.cpu().numpy().reshape(height, width))
    picture = code_colors(codebook_size)[codes].repeat(cell, axis=0).repeat(cell, axis=1)
    rows, columns = np.indices(picture.shape[:2])
    hatch = np.where((rows + columns) % 4 == 0, 120, 190).astype(np.uint8)
    return np.where(masked.repeat(cell, axis=0).repeat(cell, axis=1)[..., None], hatch[..., None], picture)


def grid(pictures: Sequence[np.ndarray], columns: int | None = None, margin: int = MARGIN) -> np.ndarray:
    """Pictures of one size side by side, row by row, on white.

    Args:
        pictures: uint8 arrays (H, W, 3).
        columns: Pictures a row; by default as square as possible.
        margin: Pixels between pictures and around them.

    Raises:
        ValueError: If there is no picture, or sizes differ.
    """
    if len(pictures) == 0:
        raise ValueError('a grid needs at least one picture')
    sizes = {picture.shape for picture in pictures}
    if len(sizes) > 1:
        raise ValueError(f'pictures of a grid must have one size, got {sorted(sizes)}')
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    height, width = pictures[0].shape[:2]
    sheet = np.full((rows * (height + margin) + margin, columns * (width + margin) + margin, 3), PAPER, np.uint8)
    for index, picture in enumerate(pictures):
        top = margin + index // columns * (height + margin)
        left = margin + index % columns * (width + margin)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def steps_strip(
    steps: Sequence,
    grid_size: tuple[int, int],
    codebook_size: int,
    image: int = 0,
    side: int = 96,
    max_columns: int = 12,
) -> np.ndarray:
    """The alternating steps of one image: its token map above its pixels, a column a step.

    Args:
        steps: :class:`~addp_mm.generation.SamplingStep` in the order they were taken.
        grid_size: (h, w) of the tokens.
        codebook_size: Number of codes.
        image: Position of the image in the batch.
        side: Pixels of the longer side of each picture, at least.
        max_columns: More steps than this are thinned evenly; the first and the last are always
            shown.

    Returns:
        uint8 (H, W, 3).
    """
    if len(steps) == 0:
        raise ValueError('a strip needs at least one step')
    count = min(len(steps), max(2, max_columns))
    chosen = [steps[round(position)] for position in np.linspace(0, len(steps) - 1, count)]
    pixels = [enlarge(to_uint8(step.images[image : image + 1])[0], side) for step in chosen]
    height, width = pixels[0].shape[:2]
    maps = [token_map(step.ids[image], step.mask[image], grid_size, codebook_size) for step in chosen]
    maps = [np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)) for picture in maps]
    return grid(maps + pixels, columns=count)
