# Copyright (c) addp_mm contributors. Apache-2.0.
"""Hue jitter on numpy 2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from addp_mm.compat.importing import replace

if TYPE_CHECKING:
    import numpy as np


def patch_adjust_hue(photometric: Any) -> bool:
    """Make ``mmcv.adjust_hue`` accept negative factors.

    mmcv casts the shift with ``np.uint8(negative)``, which numpy 2 refuses, so that every second
    image of a ColorJitter with hue fails.

    Args:
        photometric: ``mmcv.image.photometric``.

    Returns:
        Whether a negative factor fails.
    """
    import numpy as np

    try:
        photometric.adjust_hue(np.zeros((1, 1, 3), np.uint8), -0.1, backend='cv2')
    except OverflowError:
        replace(photometric, 'adjust_hue', lambda original: _make_adjust_hue(original, photometric))
        return True
    return False


def _make_adjust_hue(original, photometric: Any):
    import numpy as np

    def adjust_hue(img, hue_factor, backend=None):
        try:
            return original(img, hue_factor, backend=backend)
        except OverflowError:
            # the hue is a circle of 256 steps: one step backward is 255 steps forward
            shift = np.uint8(int(hue_factor * 255) % 256)
            turn = _turn_pillow if (backend or photometric.imread_backend) == 'pillow' else _turn_cv2
            return turn(img, shift)

    return adjust_hue


def _turn_cv2(img: np.ndarray, shift: np.uint8) -> np.ndarray:
    import cv2
    import numpy as np

    hsv = cv2.cvtColor(img.astype(np.uint8), cv2.COLOR_BGR2HSV_FULL)
    hsv[..., 0] += shift
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL).astype(img.dtype)


def _turn_pillow(img: np.ndarray, shift: np.uint8) -> np.ndarray:
    import numpy as np
    from PIL import Image

    hsv = np.array(Image.fromarray(np.ascontiguousarray(img[..., ::-1])).convert('HSV'))
    hsv[..., 0] += shift
    return np.array(Image.fromarray(hsv, 'HSV').convert('RGB'), dtype=img.dtype)[..., ::-1]
