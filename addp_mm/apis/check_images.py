# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images as the models take them, or an error: values on another scale would give wrong results and no word of it."""

from __future__ import annotations

import torch
from torch import Tensor

#: How far rounding may lead beyond [0, 1], as in an image that was normalised and brought back.
TOLERANCE = 1e-3


def check_images(images: Tensor, channels: int, size: tuple[int, int] | None = None) -> Tensor:
    """Refuse what is no batch of images in [0, 1].

    Args:
        images: (B, C, H, W).
        channels: C of the model.
        size: (H, W) of the model; any by default.

    Returns:
        The images, with what lies beyond [0, 1] by rounding clamped.

    Raises:
        ValueError: If shape or type is another, or a value is not finite or further beyond [0, 1]
            than :data:`TOLERANCE`.
    """
    height, width = size or ('H', 'W')
    fits = images.dim() == 4 and images.shape[1] == channels and size in (None, tuple(images.shape[2:]))
    if not fits:
        raise ValueError(f'images must be (B, {channels}, {height}, {width}) for this model, got {tuple(images.shape)}')
    if images.numel() == 0:
        return images
    if not images.isfinite().all():
        raise ValueError(f'images hold {int((~images.isfinite()).sum())} value(s) that are not finite')
    low, high = images.amin().item(), images.amax().item()
    if not images.is_floating_point() or low < -TOLERANCE or high > 1 + TOLERANCE:
        raise ValueError(
            f'images must be floating point in [0, 1], got {images.dtype} from {low:g} to {high:g}: '
            'divide by 255 where they are bytes, clamp where resizing overshoots, and leave mean and '
            'deviation to the model'
        )
    return torch.clamp(images, 0, 1)
