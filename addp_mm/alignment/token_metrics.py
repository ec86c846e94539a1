# Copyright (c) addp_mm contributors. Apache-2.0.
"""Numbers about the tokens of sequences, for losses and for the log of a training."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def mean_over_tokens(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over the tokens of each sequence.

    Args:
        values: (B, L).
        mask: (B, L), bool, True where there is a token. Defaults to None: everywhere.

    Returns:
        (B,); 0 for a sequence without a token.
    """
    if mask is None:
        return values.mean(1)
    return values.masked_fill(~mask, 0).sum(1) / mask.sum(1).clamp(min=1)


def token_divergence(logits: Tensor, from_logits: Tensor) -> Tensor:
    """Kullback-Leibler divergence of two predictions of a token, in nats, in float32.

    Args:
        logits: Of the first distribution P, (..., K).
        from_logits: Of the second one Q, (..., K).

    Returns:
        KL(P ‖ Q) at each position, (...).
    """
    one, other = (
        part.log_softmax(-1, dtype=None if part.dtype == torch.float64 else torch.float32)
        for part in (logits, from_logits)
    )
    return F.kl_div(other, one, reduction='none', log_target=True).sum(-1)


@torch.no_grad()
def preference_metrics(chosen: Tensor, rejected: Tensor, beta: float) -> dict[str, Tensor]:
    """Rewards of pairs. The reward of a sequence is beta times the sum of its log-ratios.

    Args:
        chosen: Log-ratios of policy and reference of the better sequences, without weights, (B, L).
        rejected: Those of the worse ones.
        beta: Scale of the rewards.

    Returns:
        ``reward_margin``: mean difference of the rewards. ``reward_accuracy``: share of the pairs
        whose chosen sequence has the higher reward. ``chosen_reward`` and ``rejected_reward``: mean
        rewards.
    """
    better, worse = beta * chosen.sum(1), beta * rejected.sum(1)
    return dict(
        reward_margin=(better - worse).mean(),
        reward_accuracy=(better > worse).float().mean(),
        chosen_reward=better.mean(),
        rejected_reward=worse.mean(),
    )


@torch.no_grad()
def weight_on_top_tenth(weights: Tensor, mask: Tensor | None = None) -> Tensor:
    """Share of the whole weight that is on the tenth of the tokens with the largest weights.

    If all tokens have the same weight, it is 0.1.

    Args:
        weights: (B, L), at least 0.
        mask: (B, L), bool, True where there is a token. Defaults to None: everywhere.

    Returns:
        A scalar; NaN if all weights are 0.
    """
    values = weights.flatten() if mask is None else weights[mask]
    return values.topk(math.ceil(len(values) / 10)).values.sum() / values.sum()
