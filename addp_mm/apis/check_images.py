# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check images before a model uses them: wrong scales would give wrong results silently."""

from __future__ import annotations

from torch import Tensor

#: Allowed distance from [0, 1]: an image that was normalised and restored has rounding errors.
TOLERANCE = 1e-3


def check_images(images: Tensor, channels: int, size: tuple[int, int] | None = None) -> Tensor:
    """Check that a tensor is a batch of images in [0, 1].

    Args:
        images: (B, C, H, W).
        channels: C of the model.
        size: (H, W) of the model. Defaults to None: any.

    Returns:
        The images, clamped to [0, 1].

    Raises:
        ValueError: The shape or dtype is wrong, or a value is non-finite or further outside [0, 1]
            than :data:`TOLERANCE`.
    """
    if images.dim() != 4 or images.shape[1] != channels or size not in (None, tuple(images.shape[2:])):
        height, width = size or ('H', 'W')
        raise ValueError(f'images must be (B, {channels}, {height}, {width}) for this model, got {tuple(images.shape)}')
    if images.numel() == 0:
        return images
    if not images.isfinite().all():
        raise ValueError(f'images have {int((~images.isfinite()).sum())} non-finite value(s) (NaN or Inf)')
    low, high = images.amin().item(), images.amax().item()
    if not images.is_floating_point() or low < -TOLERANCE or high > 1 + TOLERANCE:
        raise ValueError(
            f'images must be floating point in [0, 1], got {images.dtype} from {low:g} to {high:g}: '
            'divide bytes by 255, clamp values after a resize, and do not subtract the mean: the model does it'
        )
    return images.clamp(0, 1)
