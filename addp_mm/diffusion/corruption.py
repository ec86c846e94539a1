# Copyright (c) addp_mm contributors. Apache-2.0.
"""From predicted token probabilities to noisy latents."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_codes(probabilities: Tensor, codebook: Tensor) -> Tensor:
    """Mean code vectors: (..., codebook_size), (codebook_size, C) -> (..., C), in its dtype."""
    return probabilities.to(codebook.dtype) @ codebook


def expected_latents(probabilities: Tensor, codebook: Tensor, height: int, width: int) -> Tensor:
    """Mean code vector at each position.

    Args:
        probabilities: (B, height * width, codebook_size).
        codebook: (codebook_size, C).
        height: Height of the token map.
        width: Width of the token map.

    Returns:
        Latents (B, C, height, width), in the codebook's dtype.
    """
    return mean_codes(probabilities, codebook).transpose(1, 2).unflatten(2, (height, width))


def corrupt(latents: Tensor, expected: Tensor, mask: Tensor) -> Tensor:
    """Replace latents at masked positions with expected ones (z_t of ADDP, arXiv 2306.05423).

    Args:
        latents: (B, C, h, w).
        expected: (B, C, h, w).
        mask: (B, h * w), bool, True where masked.

    Returns:
        (B, C, h, w).
    """
    return torch.where(mask.view(len(mask), 1, *latents.shape[-2:]), expected, latents)


def corrupt_rows(latents: Tensor, expected: Tensor, rows: Tensor) -> Tensor:
    """:func:`corrupt` with what is expected at the masked positions alone.

    Args:
        latents: (B, C, h, w).
        expected: (M, C).
        rows: The masked positions in the batch, whose maps lie behind each other, (M,), int64.

    Returns:
        (B, C, h, w), in the channels-last memory format.
    """
    maps = latents.permute(0, 2, 3, 1)
    return maps.flatten(0, 2).index_copy(0, rows, expected).view(maps.shape).permute(0, 3, 1, 2)
