# Copyright (c) addp_mm contributors. Apache-2.0.
"""From predicted token probabilities to noisy latents."""

from __future__ import annotations

import torch
from torch import Tensor


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
    return (probabilities.to(codebook.dtype) @ codebook).transpose(1, 2).unflatten(2, (height, width))


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
