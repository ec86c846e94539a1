# Copyright (c) addp_mm contributors. Apache-2.0.
"""Scenes whose garments have lost their shapes: what a classifier of garments must not name."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_NODES = 8  # of the grid of random displacements, along a side
_DISPLACEMENT = 0.075  # standard deviation, as a share of the side


def warped(pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Bend scenes by random smooth displacements, so that garments become blobs of their colours.

    Args:
        pixels: Scenes, uint8 (B, 3, H, W).
        generator: Source of random numbers. Defaults to None: torch's global one.
    """
    count, _, height, width = pixels.shape
    # positions in an image are from -1 to 1
    moves = 2 * _DISPLACEMENT * torch.randn(count, 2, _NODES, _NODES, generator=generator)
    moves = F.interpolate(moves, size=(height, width), mode='bicubic').permute(0, 2, 3, 1)
    positions = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), [count, 3, height, width], align_corners=False)
    bent = F.grid_sample(pixels.float(), positions + moves, padding_mode='reflection', align_corners=False)
    return bent.round().to(torch.uint8)


def blurred(pixels: Tensor) -> Tensor:
    """Average scenes, uint8 (B, 3, H, W), over 3 x 3 pixels."""
    return F.avg_pool2d(pixels.float(), 3, 1, 1, count_include_pad=False).round().to(torch.uint8)
