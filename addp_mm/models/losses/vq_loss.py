# Copyright (c) addp_mm contributors. Apache-2.0.
"""Vector quantisation: its losses, how gradients pass the codes, and codes that follow a moving average."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine import dist
from torch import Tensor, nn


def vq_losses(latents: Tensor, codes: Tensor, commitment_weight: float, learn_codes: bool = True) -> dict[str, Tensor]:
    """``|sg(z) - e|^2`` and ``commitment_weight * |z - sg(e)|^2`` (VQ-VAE, arXiv 1711.00937).

    Both are means over the channels too: a sum would pull all latents onto the few directions that
    codes already take.

    Args:
        latents: (B, C, h, w).
        codes: Their codes, the same shape.
        commitment_weight: Factor of the pull of the latents towards their codes.
        learn_codes: False where the codes have no gradient, as with :class:`EMACodes`.
    """
    losses = dict(loss_codebook=F.mse_loss(codes, latents.detach())) if learn_codes else {}
    losses['loss_commitment'] = commitment_weight * F.mse_loss(latents, codes.detach())
    return losses


def straight_through(latents: Tensor, codes: Tensor) -> Tensor:
    """The codes, with their gradient copied to the latents (VQ-VAE, arXiv 1711.00937); both (B, C, h, w)."""
    return latents + (codes - latents).detach()


def rotation_trick(latents: Tensor, codes: Tensor, eps: float = 1e-6) -> Tensor:
    """The codes, as latents that were rotated and stretched onto them (rotation trick, arXiv 2410.06424, section 4).

    Rotation and stretch count as constants. So the gradient keeps its angle and its length relative
    to the vector: it differs among latents of one code, where :func:`straight_through` gives all
    the same.

    Args:
        latents: (B, C, h, w).
        codes: The same shape.
        eps: Lower bound of lengths that divide.

    Returns:
        (B, C, h, w), equal to ``codes`` up to rounding; no gradient to ``codes``.
    """
    with torch.no_grad():
        length_from, length_to = (x.norm(dim=1, keepdim=True) for x in (latents, codes))
        start, end = latents / length_from.clamp_min(eps), codes / length_to.clamp_min(eps)
        middle = start + end
        middle = middle / middle.norm(dim=1, keepdim=True).clamp_min(eps)
        stretch = length_to / length_from.clamp_min(eps)
    turned = (
        latents
        - 2 * middle * (middle * latents).sum(1, keepdim=True)
        + 2 * end * (start * latents).sum(1, keepdim=True)
    )
    return stretch * turned


CODE_GRADIENTS = {'straight_through': straight_through, 'rotation': rotation_trick}


def perplexity(counts: Tensor) -> Tensor:
    """Exponential of the entropy of counts (K): the number of codes in even use that would be as diverse."""
    shares = counts.float() / counts.sum().clamp_min(1)
    return (-(shares * shares.clamp_min(1e-12).log()).sum()).exp()


class EMACodes(nn.Module):
    """Codes as the moving mean of the latents that chose them (VQ-VAE, arXiv 1711.00937, appendix A.1).

    With n latents of sum s in a batch (of all processes) a code's count and sum become
    ``N <- d N + (1 - d) n`` and ``m <- d m + (1 - d) s``, and the code is m / N. A code that none chose keeps its place: both shrink alike. They
    start as one latent at the code's place.

    Args:
        codes: Their start (K, C).
        decay: d, in (0, 1).

    Raises:
        ValueError: If the decay is outside (0, 1).
    """

    def __init__(self, codes: Tensor, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 < decay < 1:
            raise ValueError(f'the decay of an EMA codebook must lie in (0, 1), got {decay}')
        self.decay = decay
        self.register_buffer('counts', torch.ones(len(codes)))
        self.register_buffer('sums', codes.detach().clone().float())

    @torch.no_grad()
    def update(self, codes: Tensor, ids: Tensor, latents: Tensor) -> None:
        """Move codes (K, C) in place.

        Args:
            codes: Changed where a latent chose them.
            ids: (B, h * w), the codes that were chosen.
            latents: (B, C, h, w).
        """
        rows = latents.permute(0, 2, 3, 1).flatten(0, 2).float()
        counts = torch.bincount(ids.flatten(), minlength=len(codes)).to(self.counts)
        sums = torch.zeros_like(self.sums).index_add_(0, ids.flatten(), rows)
        dist.all_reduce(counts)
        dist.all_reduce(sums)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        # left alone, an unused code could only be moved by rounding, when both numbers have come
        # near zero
        chosen = counts > 0
        codes[chosen] = (self.sums[chosen] / self.counts[chosen, None]).to(codes)

    @torch.no_grad()
    def restart(self, codes: Tensor, which: Tensor) -> None:
        """Start over at codes (K, C) where ``which`` (K) is True."""
        self.counts[which] = 1.0
        self.sums[which] = codes[which].to(self.sums)
