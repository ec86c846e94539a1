# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images that a visitor uploads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from addp_mm.datasets.readers.read_image import read_image, upright_size
from addp_mm.errors import ConfigError
from addp_mm.generation.figures import to_uint8

MAX_PIXELS = 25_000_000
_LUMINANCE = 'L'


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
    if height * width > MAX_PIXELS:
        raise ConfigError(
            f'{file.name} has {width} x {height} pixels; the page takes at most {MAX_PIXELS // 10**6} megapixels: '
            'make the image smaller'
        )
    try:
        stored = read_image(file, all_pages=False)
        pixels = stored.rgb()
    except ValueError as error:
        raise ConfigError(f'{file.name} cannot be read as an image ({error}): upload another one') from error
    bits = 8 * stored.values.dtype.itemsize
    return pixels, f'{bits} bits of each channel were scaled to 8. ' if bits > 8 else ''


def fit_to(pixels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """Crop the centre of an image and resize it.

    Args:
        pixels: uint8 (H, W, 3).
        size: (height, width) of the result.

    Returns:
        The image, and what was changed; '' if nothing was.
    """
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels, ''
    fitted = ImageOps.fit(Image.fromarray(pixels), size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(fitted), (
        f'The centre of the image ({width} x {height} pixels) was resized to {size[1]} x {size[0]} pixels, the size '
        'that the model generates.'
    )


def reduce_to(pixels: np.ndarray, side: int) -> tuple[np.ndarray, str]:
    """Reduce an image whose longer side has more pixels than ``side``; keep its shape.

    Args:
        pixels: uint8 (H, W, 3).
        side: Pixels.

    Returns:
        The image, and what was changed; '' if nothing was.
    """
    if max(pixels.shape[:2]) <= side:
        return pixels, ''
    reduced = np.asarray(ImageOps.contain(Image.fromarray(pixels), (side, side), Image.Resampling.BICUBIC))
    return reduced, f'The image was reduced to {reduced.shape[1]} x {reduced.shape[0]} pixels.'


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
