# Copyright (c) addp_mm contributors. Apache-2.0.
"""The images of a batch with their names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from addp_mm.generation.figures import image_grid, three_channels

_SIDE, _LINE = 160, 14  # pixels of an image, and of its name


def batch_figure(inputs: Any, names: Sequence[str], marked: Collection[int] = ()) -> Image.Image | None:
    """Draw the images of a batch, each above its name.

    Args:
        inputs: Images (B, C, H, W), or a list of (C, H, W), of any range.
        names: B names.
        marked: Numbers of the images that get a red frame. Defaults to ().

    Returns:
        The figure, or None if the batch has no images.
    """
    images = list(inputs)
    if images and isinstance(images[0], Tensor) and images[0].dim() == 4:
        images = list(images[0])  # the first view
    if not images or not all(isinstance(image, Tensor) and image.dim() == 3 for image in images):
        return None
    tiles = [_tile(image, names[number], number in marked) for number, image in enumerate(images)]
    return Image.fromarray(image_grid(tiles))


def _tile(image: Tensor, name: str, is_marked: bool) -> np.ndarray:
    values = np.nan_to_num(image.float().numpy(), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255 and not image.is_floating_point()):
        values = 255 * (values - low) / max(high - low, 1e-12)
    pixels = three_channels(values[None])[0].transpose(1, 2, 0).round().astype(np.uint8)
    drawn = Image.fromarray(pixels)
    scale = _SIDE / max(drawn.size)
    drawn = drawn.resize([max(1, round(side * scale)) for side in drawn.size], Image.Resampling.NEAREST)
    tile = Image.new('RGB', (_SIDE, _SIDE + _LINE), 'white')
    tile.paste(drawn, (0, 0))
    draw = ImageDraw.Draw(tile)
    draw.text((2, _SIDE + 1), name[-26:], fill='red' if is_marked else 'black')
    if is_marked:
        draw.rectangle((0, 0, drawn.width - 1, drawn.height - 1), outline='red', width=3)
    return np.asarray(tile)
