# Copyright (c) addp_mm contributors. Apache-2.0.
"""Rules of generation: which ids are drawn, which stay, how many positions are masked again.

They follow the released ADDP code, which follows MaskGIT (arXiv 2202.04200). Top-k, the power ratio
and fixed orders are additions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from addp_mm.diffusion.noise import GeneratorLike, uniform_noise


def cosine_ratio(step: int, steps: int) -> float:
    """Share of positions that stay masked after ``step`` (from 0): cos(π/2·(step+1)/steps)."""
    return math.cos(math.pi / 2 * (step + 1) / steps)


def linear_ratio(step: int, steps: int) -> float:
    """Share of positions that stay masked after ``step`` (from 0): 1 − (step+1)/steps."""
    return 1 - (step + 1) / steps


def power_ratio(step: int, steps: int, exponent: float) -> float:
    """Share of positions that stay masked after ``step`` (from 0): 1 − ((step+1)/steps)^exponent.

    A larger ``exponent`` keeps fewer tokens in the early steps; 1 is :func:`linear_ratio`.
    """
    return 1 - ((step + 1) / steps) ** exponent


def annealed_temperature(step: int, steps: int, start: float = 6.0) -> float:
    """Temperature of the confidence noise at ``step`` (from 0): start · (1 − (step+1)/steps)."""
    return start * (1 - (step + 1) / steps)


def mask_length(num_masked: Tensor, ratio: float) -> Tensor:
    """Number of positions to mask for the next step.

    Args:
        num_masked: Number of positions masked at the start of generation, (B,) int64.
        ratio: Share of them to keep masked.

    Returns:
        ``ceil(num_masked * ratio)``, at least 1 and at most ``num_masked``, (B,) int64.
    """
    length = torch.ceil(num_masked.double() * ratio).long()
    return torch.minimum(length.clamp(min=1), num_masked)


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Keep the most likely codes that together reach ``top_p``; set all others to zero.

    Args:
        probabilities: (..., K).
        top_p: In (0, 1]; 1 keeps all.

    Returns:
        (..., K), not normalised again.

    Raises:
        ValueError: ``top_p`` is outside (0, 1].
    """
    if not 0 < top_p <= 1:
        raise ValueError(f'top_p must be in (0, 1], got {top_p}')
    if top_p == 1:
        return probabilities
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return torch.zeros_like(probabilities).scatter(-1, order, ordered.masked_fill(outside, 0))


def most_likely(probabilities: Tensor, top_k: int) -> Tensor:
    """Keep the ``top_k`` most likely codes; set all others to zero.

    Args:
        probabilities: (..., K).
        top_k: At least 1; K and more keep all. Of equally likely codes the lower ids are kept.

    Returns:
        (..., K), normalised again.

    Raises:
        ValueError: ``top_k`` is below 1.
    """
    if top_k < 1:
        raise ValueError(f'top_k must be at least 1, got {top_k}')
    if top_k >= probabilities.shape[-1]:
        return probabilities
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    kept = ordered[..., :top_k] / ordered[..., :top_k].sum(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, order[..., :top_k], kept)


def sample_ids(
    logits: Tensor, generator: GeneratorLike, top_p: float = 1.0, temperature: float = 1.0, top_k: int | None = None
) -> tuple[Tensor, Tensor]:
    """Draw an id at each position.

    Args:
        logits: (B, L, K), over the codes only.
        generator: One for the batch, or one for each row (see
            :func:`~addp_mm.diffusion.noise.uniform_noise`).
        top_p: Below 1, ids are drawn from the :func:`nucleus`. Defaults to 1.
        temperature: Divides the logits; positive. Defaults to 1.
        top_k: Ids are drawn from so many :func:`most_likely` codes, before ``top_p`` is applied.
            Defaults to None: from all codes.

    Returns:
        Ids (B, L), int64, and their log-probabilities (B, L), float32, under the softmax of the
        given logits.

    Raises:
        ValueError: ``temperature`` is not positive, ``top_p`` is outside (0, 1], or ``top_k`` is
            below 1.
    """
    if temperature <= 0:
        raise ValueError(f'temperature must be positive, got {temperature}')
    batch_size, num_tokens, num_codes = logits.shape
    probabilities = (logits.float() / temperature).softmax(-1)
    if top_k is not None:
        probabilities = most_likely(probabilities, top_k)
    weights = nucleus(probabilities, top_p).double().cumsum(-1)
    noise = uniform_noise(batch_size, num_tokens, generator=generator, device=logits.device).double()
    point = noise.unsqueeze(-1) * weights[..., -1:]
    ids = torch.searchsorted(weights, point, right=True).clamp(max=num_codes - 1)
    log_probs = logits.float().log_softmax(-1).gather(-1, ids)
    return ids.squeeze(-1), log_probs.squeeze(-1)


def remask(
    log_probs: Tensor, mask: Tensor, length: int | Tensor, temperature: float, generator: GeneratorLike
) -> Tensor:
    """Mask the least confident positions again.

    Args:
        log_probs: Log-probabilities of the drawn ids, (B, L).
        mask: Positions that were masked before the draw, (B, L), bool. All others are known and
            stay.
        length: Number of positions to mask; an int, or int64 (B,).
        temperature: Scale of the Gumbel noise added to the log-probabilities.
        generator: One for the batch, or one for each row.

    Returns:
        (B, L), bool: ``length`` positions in each row, all of them inside ``mask``.

    Raises:
        ValueError: A row has fewer than ``length`` masked positions.
    """
    length = _checked_length(length, mask)
    noise = uniform_noise(*log_probs.shape, generator=generator, device=log_probs.device)
    tiny = torch.finfo(noise.dtype).tiny
    exponential = -torch.log(noise.clamp(min=tiny))
    gumbel = -torch.log(exponential.clamp(min=tiny))
    return mask_lowest(log_probs.float() + temperature * gumbel, mask, length)


def remask_in_order(order: Tensor, mask: Tensor, length: int | Tensor) -> Tensor:
    """Mask again the positions that come last in a fixed order; known positions are skipped.

    Args:
        order: Every position once, (L,), int64, the first one to keep first.
        mask: See :func:`remask`.
        length: See :func:`remask`.

    Returns:
        See :func:`remask`.

    Raises:
        ValueError: A row has fewer than ``length`` masked positions.
    """
    length = _checked_length(length, mask)
    turn = order.argsort().expand_as(mask)
    return mask_lowest(-turn.float(), mask, length)


def _checked_length(length: int | Tensor, mask: Tensor) -> Tensor:
    length = torch.as_tensor(length, device=mask.device).expand(len(mask))
    if (length > mask.sum(1)).any():
        raise ValueError('cannot mask more positions than were masked before: known positions keep their ids')
    return length


def mask_lowest(confidence: Tensor, mask: Tensor, length: Tensor) -> Tensor:
    """Mask the positions with the lowest confidence.

    Args:
        confidence: (B, L).
        mask: Positions that may be masked, (B, L), bool.
        length: Number of positions to mask, at most as many as ``mask`` has, int64 (B,).

    Returns:
        (B, L), bool. Of equal confidences, the first positions are masked.
    """
    confidence = confidence.masked_fill(~mask, math.inf)
    rank = confidence.argsort(dim=1, stable=True).argsort(dim=1)
    return rank < length.unsqueeze(1)
