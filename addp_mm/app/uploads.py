# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images that a visitor uploads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from addp_mm.datasets.readers.read_image import read_image, upright_size
from addp_mm.datasets.readers.read_tiff import TooLargeError
from addp_mm.errors import ConfigError
from addp_mm.generation.figures import to_uint8

MAX_PIXELS = 25_000_000
# a mask for each object or class, and each sample of inpainting, is as large as the image
MAX_SIDE = 1333
#: Arguments of events that read an image: they do not wait for the models.
READING: dict[str, Any] = dict(concurrency_limit=2, concurrency_id='images', api_visibility='private')
_LUMINANCE = 'L'


def opened(path: str | None) -> tuple[np.ndarray, str]:
    """Read an uploaded image, and reduce it if a side is above :data:`MAX_SIDE`.

    Args:
        path: See :func:`read_upload`.

    Returns:
        uint8 (H, W, 3), and a note about its size and what was changed.

    Raises:
        ConfigError: See :func:`read_upload`.
    """
    pixels, changed = read_upload(path)
    image, reduced = reduce_to(pixels, MAX_SIDE)
    return image, changed + (reduced or f'The image has {image.shape[1]} x {image.shape[0]} pixels.')


def read_upload(path: str | None) -> tuple[np.ndarray, str]:
    """Read an uploaded image as RGB of eight bits.

    Args:
        path: The file; None if there is none.

    Returns:
        uint8 (H, W, 3), and what was changed; '' if nothing was.

    Raises:
        ConfigError: There is no file, it is empty, damaged or no image, or the image has more than
            :data:`MAX_PIXELS`.
    """
    if path is None:
        raise ConfigError('upload an image, or take the example scene')
    file = Path(path)
    if not file.stat().st_size:
        raise ConfigError(f'{file.name} is empty (0 bytes): upload an image')
    height, width = upright_size(file) or (0, 0)
    smaller = f'the page takes at most {MAX_PIXELS // 10**6} megapixels: make the image smaller'
    if height * width > MAX_PIXELS:
        raise ConfigError(f'{file.name} has {width} x {height} pixels; {smaller}')
    try:
        stored = read_image(file, all_pages=False, max_pixels=MAX_PIXELS)
        pixels = stored.rgb()
    except TooLargeError as error:  # its header cannot be read either
        raise ConfigError(f'{file.name} is too large; {smaller}') from error
    except ValueError as error:
        raise ConfigError(f'{file.name} cannot be read as an image ({error}): upload another one') from error
    bits = 8 * stored.values.dtype.itemsize
    return pixels, f'{bits} bits of each channel were scaled to 8. ' if bits > 8 else ''


def reduce_to(pixels: np.ndarray, side: int) -> tuple[np.ndarray, str]:
    """Reduce an image whose longer side has more pixels than ``side``; keep its shape.

    Args:
        pixels: uint8 (H, W, 3).
        side: Pixels.

    Returns:
        The image, and what was changed; '' if nothing was.
    """
    height, width = pixels.shape[:2]
    longer = max(height, width)
    if longer <= side:
        return pixels, ''
    size = max(1, round(width * side / longer)), max(1, round(height * side / longer))
    reduced = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(reduced), f'The image was reduced from {width} x {height} to {size[0]} x {size[1]} pixels.'


def to_tensor(pixels: np.ndarray, channels: int) -> torch.Tensor:
    """An image as the models take it.

    Args:
        pixels: uint8 (H, W, 3).
        channels: 1 converts to grey, 3 keeps RGB.

    Returns:
        (1, channels, H, W) in [0, 1].

    Raises:
        ConfigError: The model has another number of channels.
    """
    if channels == 1:
        pixels = np.asarray(Image.fromarray(pixels).convert(_LUMINANCE))[..., None]
    elif channels != 3:
        raise ConfigError(f'the model has {channels} channels; the page can only read images of 1 or 3 channels')
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def shown(images: torch.Tensor) -> list[np.ndarray]:
    """Images (B, C, H, W) in [0, 1] as arrays that the page shows."""
    return list(to_uint8(images))
