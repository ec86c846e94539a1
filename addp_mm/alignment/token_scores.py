# Copyright (c) addp_mm contributors. Apache-2.0.
"""Scores of tokens: how much more likely they are in right sequences than in wrong ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

#: Positions whose logits are in float32 at the same time.
CHUNK_SIZE = 4096
Sides = Literal['none', 'rejected', 'both']
SIDES: tuple[Sides, ...] = ('none', 'rejected', 'both')


def token_log_probs(logits: Tensor, ids: Tensor, mask: Tensor | None = None, chunk_size: int = CHUNK_SIZE) -> Tensor:
    """Log-probability of each token, in float32.

    Args:
        logits: (..., K), of any floating type.
        ids: (...), int64.
        mask: (...), bool, True where there is a token. Defaults to None: everywhere.
        chunk_size: Positions that are computed together without a gradient. Defaults to 4096.

    Returns:
        (...); 0 where there is no token.

    Raises:
        ValueError: The shapes do not fit.
    """
    return _at_tokens(_log_prob, (logits,), ids, mask, chunk_size)


@torch.no_grad()
def contrastive_scores(
    positive_logits: Tensor,
    negative_logits: Tensor,
    ids: Tensor,
    contrast: float = 1.0,
    mask: Tensor | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> Tensor:
    """Contrastive scores of tokens (arXiv 2411.19943, section 3.1).

    The score of a token is its probability under ``softmax((1 + c) · positive − c · negative)``. It
    is low where the negative model, which was trained on wrong sequences, finds the token more
    likely than the positive model does. If both models are equal, it is their probability.

    Args:
        positive_logits: Logits of the model of right sequences, (..., K).
        negative_logits: Logits of the model of wrong sequences, (..., K). A logit of -inf in both
            models forbids a token.
        ids: Tokens, (...), int64.
        contrast: Strength c of the contrast, at least 0. Defaults to 1.
        mask: (...), bool, True where there is a token. Defaults to None: everywhere.
        chunk_size: Positions that are computed together; besides the logits, so many times K
            numbers are in memory. Defaults to 4096.

    Returns:
        (...), float32, from 0 to 1; 0 where there is no token.

    Raises:
        ValueError: The shapes do not fit, or the contrast is negative.
    """
    if not 0 <= contrast < math.inf:
        raise ValueError(f'contrast must be finite and at least 0, got {contrast}')
    if positive_logits.shape != negative_logits.shape:
        raise ValueError(
            f'the logits must have one shape, got {tuple(positive_logits.shape)} and {tuple(negative_logits.shape)}'
        )
    score = partial(_contrasted_prob, contrast=contrast)
    return _at_tokens(score, (positive_logits, negative_logits), ids, mask, chunk_size)


def token_weights(scores: Tensor, side: Literal['chosen', 'rejected'], weighted: Sides = 'rejected') -> Tensor:
    """Weights of the tokens in the loss.

    A rejected token has the weight 1 − score: the likely cause of the fault counts most. A chosen
    token has the weight 1, or its score.

    Args:
        scores: From :func:`contrastive_scores`, (B, L).
        side: 'chosen' or 'rejected': to which sequences the scores belong.
        weighted: Which sides have weights: 'none', 'rejected' or 'both'. Defaults to 'rejected'.

    Returns:
        (B, L).

    Raises:
        ValueError: ``side`` or ``weighted`` is unknown.
    """
    if side not in ('chosen', 'rejected') or weighted not in SIDES:
        raise ValueError(f"side must be 'chosen' or 'rejected' and weighted one of {SIDES}, got {side!r}, {weighted!r}")
    if weighted == 'none' or (side == 'chosen' and weighted == 'rejected'):
        return torch.ones_like(scores)
    return 1 - scores if side == 'rejected' else scores


def score_ranks(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Rank of each score in its sequence, from 0, the lowest, to 1, the highest.

    Codes of images are less sure than words: almost all of their scores are near 0, and 1 − score
    is near 1 for all. Ranks keep the order, and spread the weights. Equal scores share the mean of
    their ranks.

    Args:
        scores: From :func:`contrastive_scores`, (B, L).
        mask: (B, L), bool, True where there is a token. Defaults to None: everywhere.

    Returns:
        (B, L), float32; 0 where there is no token.
    """
    wanted = scores if mask is None else scores.masked_fill(~mask, math.inf)
    ordered = wanted.sort(dim=1).values
    below, up_to = (torch.searchsorted(ordered, wanted.contiguous(), right=right) for right in (False, True))
    order = (below + up_to - 1).float() / 2
    if mask is None:
        return order / max(1, scores.shape[1] - 1)
    return (order / (mask.sum(1, keepdim=True) - 1).clamp(min=1)).masked_fill(~mask, 0)


def _at_tokens(
    compute: Callable[..., Tensor], logits: tuple[Tensor, ...], ids: Tensor, mask: Tensor | None, chunk_size: int
) -> Tensor:
    """Compute a number for each token, chunk by chunk."""
    if any(part.shape[:-1] != ids.shape for part in logits) or (mask is not None and mask.shape != ids.shape):
        shapes = ', '.join(str(tuple(part.shape)) for part in (*logits, ids, *([] if mask is None else [mask])))
        raise ValueError(f'logits (..., K), ids (...) and mask (...) do not fit: {shapes}')
    if chunk_size < 1:
        raise ValueError(f'chunk_size must be at least 1, got {chunk_size}')
    rows = torch.arange(ids.numel(), device=ids.device) if mask is None else mask.flatten().nonzero()[:, 0]
    flat, wanted = [part.flatten(0, -2) for part in logits], ids.flatten()
    if torch.is_grad_enabled() and any(part.requires_grad for part in logits):
        chunk_size = max(1, len(rows))  # autograd keeps all chunks
    found = [compute(*(part[own] for part in flat), wanted[own]) for own in rows.split(chunk_size)]
    result = torch.zeros(ids.numel(), dtype=found[0].dtype, device=ids.device)
    return result.index_put((rows,), torch.cat(found)).view(ids.shape)


def _log_prob(logits: Tensor, ids: Tensor) -> Tensor:
    logits = _at_least_float32(logits)
    return logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(1)


def _contrasted_prob(positive: Tensor, negative: Tensor, ids: Tensor, contrast: float) -> Tensor:
    positive, negative = _at_least_float32(positive), _at_least_float32(negative)
    # a forbidden code stays forbidden: the difference of two infinite logits is NaN
    contrasted = torch.where(positive.isneginf(), positive, (1 + contrast) * positive - contrast * negative)
    return _log_prob(contrasted, ids).exp()


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
