# Copyright (c) addp_mm contributors. Apache-2.0.
"""Example images: scenes that no training has seen, drawn from the garments of the package."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from addp_mm.datasets.fashion.fashion_mnist import load_garments
from addp_mm.datasets.fashion.fashion_scenes import MIN_IMAGE_SIZE, SceneGenerator

# beyond the validation scenes, which start at 0
_FIRST = 100_000


@lru_cache(maxsize=4)
def _generator(side: int) -> SceneGenerator:
    return SceneGenerator(load_garments('val'), side, 'val')


def example_scene(index: int, side: int = 64) -> np.ndarray:
    """An example scene.

    Args:
        index: Its number, from 0.
        side: Pixels. Sides below 32 pixels give 32. Defaults to 64.

    Returns:
        uint8 (side, side, 3).
    """
    return _generator(max(side, MIN_IMAGE_SIZE)).scene(_FIRST + index).image
