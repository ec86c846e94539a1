# Copyright (c) addp_mm contributors. Apache-2.0.
"""Vector quantisation: losses, gradients through the codes, codes as moving averages."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine import dist
from torch import Tensor, nn


def vq_losses(latents: Tensor, codes: Tensor, commitment_weight: float, learn_codes: bool = True) -> dict[str, Tensor]:
    """``|sg(z) - e|^2`` and ``commitment_weight * |z - sg(e)|^2`` (VQ-VAE, arXiv 1711.00937).

    Both are means over the channels as well. A sum over the channels would pull all latents to the
    few directions that have codes.

    Args:
        latents: (B, C, h, w).
        codes: The nearest codes, the same shape.
        commitment_weight: Factor of the second loss, which pulls latents to their codes.
        learn_codes: Whether the codes learn by gradient; False with :class:`EMACodes`. Defaults to
            True.

    Returns:
        ``loss_commitment``, and ``loss_codebook`` if ``learn_codes``; scalars.
    """
    losses = dict(loss_codebook=F.mse_loss(codes, latents.detach())) if learn_codes else {}
    losses['loss_commitment'] = commitment_weight * F.mse_loss(latents, codes.detach())
    return losses


def straight_through(latents: Tensor, codes: Tensor) -> Tensor:
    """The codes (B, C, h, w), with their gradient copied to the latents (arXiv 1711.00937)."""
    return latents + (codes - latents).detach()


def rotation_trick(latents: Tensor, codes: Tensor, eps: float = 1e-6) -> Tensor:
    """The codes, as latents rotated and stretched to them (arXiv 2410.06424, section 4).

    Rotation and stretch are constants in the backward pass. The gradient keeps its angle to the
    vector and its relative length, so that latents of one code get different gradients. With
    :func:`straight_through` they get the same gradient.

    Args:
        latents: (B, C, h, w).
        codes: The same shape.
        eps: Lower bound of lengths in denominators. Defaults to 1e-6.

    Returns:
        (B, C, h, w), equal to ``codes`` up to rounding; ``codes`` get no gradient.
    """
    with torch.no_grad():
        length_from, length_to = (x.norm(dim=1, keepdim=True) for x in (latents, codes))
        start, end = latents / length_from.clamp_min(eps), codes / length_to.clamp_min(eps)
        middle = start + end
        middle = middle / middle.norm(dim=1, keepdim=True).clamp_min(eps)
        stretch = length_to / length_from.clamp_min(eps)
    rotated = (
        latents
        - 2 * middle * (middle * latents).sum(1, keepdim=True)
        + 2 * end * (start * latents).sum(1, keepdim=True)
    )
    return stretch * rotated


CODE_GRADIENTS = {'straight_through': straight_through, 'rotation': rotation_trick}


def perplexity(counts: Tensor) -> Tensor:
    """Exponential of the entropy of counts (K,): the effective number of codes in use."""
    shares = counts.float() / counts.sum().clamp_min(1)
    return (-(shares * shares.clamp_min(1e-12).log()).sum()).exp()


class EMACodes(nn.Module):
    """Codes as moving means of the latents quantised to them (arXiv 1711.00937, appendix A.1).

    With n latents of sum s in a batch (of all processes) a code's count and sum become
    ``N <- d N + (1 - d) n`` and ``m <- d m + (1 - d) s``, and the code is m / N. A code without
    latents in the batch stays, because N and m shrink by the same factor. At the start, each code
    counts as one latent equal to itself.

    Args:
        codes: Initial codes, (K, C).
        decay: d, in (0, 1). Defaults to 0.99.

    Raises:
        ValueError: The decay is outside (0, 1).
    """

    counts: Tensor
    sums: Tensor

    def __init__(self, codes: Tensor, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 < decay < 1:
            raise ValueError(f'the decay of an EMA codebook must be in (0, 1), got {decay}')
        self.decay = decay
        self.register_buffer('counts', torch.ones(len(codes)))
        self.register_buffer('sums', codes.detach().clone().float())

    @torch.no_grad()
    def update(self, codes: Tensor, ids: Tensor, latents: Tensor) -> None:
        """Update the codes in place.

        Args:
            codes: (K, C); those with latents in the batch are changed.
            ids: Ids of the latents' codes, (B, h * w).
            latents: (B, C, h, w).
        """
        rows = latents.permute(0, 2, 3, 1).flatten(0, 2).float()
        counts = torch.bincount(ids.flatten(), minlength=len(codes)).to(self.counts)
        sums = torch.zeros_like(self.sums).index_add_(0, ids.flatten(), rows)
        dist.all_reduce(counts)
        dist.all_reduce(sums)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        # Unused codes are left out: the quotient of small numbers would only add rounding errors.
        chosen = counts > 0
        codes[chosen] = (self.sums[chosen] / self.counts[chosen, None]).to(codes)

    @torch.no_grad()
    def restart(self, codes: Tensor, which: Tensor) -> None:
        """Reset the statistics of codes (K, C) where ``which`` (K,) is True."""
        self.counts[which] = 1.0
        self.sums[which] = codes[which].to(self.sums)
