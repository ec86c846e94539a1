# Copyright (c) addp_mm contributors. Apache-2.0.
"""New canvas beside an image, for outpainting."""

from __future__ import annotations

import numpy as np


def add_canvas(
    image: np.ndarray, mask: np.ndarray, left: int, top: int, right: int, bottom: int
) -> tuple[np.ndarray, np.ndarray]:
    """Add pixels on the four sides of an image, all of which are to be generated.

    Args:
        image: (H, W, C).
        mask: bool (H, W), True where to generate.
        left: New pixels on the left.
        top: New pixels above.
        right: New pixels on the right.
        bottom: New pixels below.

    Returns:
        The larger image, in which the pixels of its border are repeated, and the larger mask.
    """
    sides = (top, bottom), (left, right)
    return np.pad(image, (*sides, (0, 0)), mode='edge'), np.pad(mask, sides, constant_values=True)
