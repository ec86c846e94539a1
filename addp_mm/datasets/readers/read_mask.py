# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read masks from image files."""

from __future__ import annotations

import os

import numpy as np

from addp_mm.datasets.readers.read_image import read_rgb


def read_mask(source: bytes | str | os.PathLike, invert: bool = False) -> np.ndarray:
    """Read an image file as a mask: white, which is above half, is True.

    Colours count by the mean of red, green and blue. Transparent pixels are white. For 16 bits and
    the EXIF orientation see :func:`~addp_mm.datasets.readers.read_image.read_rgb`.

    Args:
        source: A path, or the bytes of an image file.
        invert: Whether black is True instead. Defaults to False.

    Returns:
        bool (H, W).

    Raises:
        ValueError: The file is damaged or of an unknown format, or its values have no known range.
        OSError: The path cannot be read.
    """
    white = read_rgb(source).mean(-1) > 127.5
    return ~white if invert else white
