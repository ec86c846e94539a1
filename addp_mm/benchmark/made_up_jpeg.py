# Copyright (c) addp_mm contributors. Apache-2.0.
"""JPEG files that compress about as photographs do."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

_STRUCTURES = ((8, 0.7), (64, 0.3))  # squares in the image's side, and their share of the brightness
_NOISE, _QUALITY = 8, 90


def made_up_jpeg(size: tuple[int, int], rng: np.random.Generator) -> bytes:
    """A file with large and small structures and some noise.

    Args:
        size: Height and width in pixels.
        rng: Draws its content.
    """
    pixels = rng.normal(0, _NOISE, (*size, 3))
    for side, share in _STRUCTURES:
        coarse = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        pixels += share * np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC), dtype=np.float32)
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, 'JPEG', quality=_QUALITY)
    return stream.getvalue()
