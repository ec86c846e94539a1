# Copyright (c) addp_mm contributors. Apache-2.0.
"""Masks over pixels as masks over tokens."""

from torch import Tensor
from torch.nn.functional import max_pool2d


def token_mask(pixel_mask: Tensor, stride: int) -> Tensor:
    """Convert a mask over pixels to a mask over tokens: a token is masked if any of its pixels is.

    Args:
        pixel_mask: (B, H, W) bool, True where to generate.
        stride: Side of a token in pixels.

    Returns:
        (B, H·W / stride²) bool.

    Raises:
        ValueError: A side is not a multiple of the stride.
    """
    if pixel_mask.dim() != 3 or pixel_mask.shape[1] % stride or pixel_mask.shape[2] % stride:
        raise ValueError(
            f'a pixel mask must be (B, H, W) with sides that are multiples of {stride}, got {tuple(pixel_mask.shape)}'
        )
    return max_pool2d(pixel_mask[:, None].float(), stride).flatten(1).bool()
