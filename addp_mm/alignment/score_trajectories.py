# Copyright (c) addp_mm contributors. Apache-2.0.
"""Contrastive scores of stored trajectories under a positive and a negative generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from addp_mm.alignment.replayed_batch import ReplayedBatch
from addp_mm.alignment.token_metrics import mean_over_tokens
from addp_mm.alignment.token_scores import contrastive_scores
from addp_mm.generation.trajectories.sampler_settings import precision_of_sampling, sampler_of
from addp_mm.generation.trajectories.trajectories import Trajectories


@dataclass(frozen=True)
class TokenScores:
    """Scores of N trajectories, and how both generators judge them.

    Attributes:
        scores: (N, L), float32; 0 at tokens that were known from the start.
        margins: Mean over a trajectory's tokens of the log-probability under the positive generator
            minus that under the negative one, (N,), in nats.
        largest_difference: Largest difference of a logit of both generators.
    """

    scores: Tensor
    margins: Tensor
    largest_difference: float

    def faults(self, right: Sequence[int], wrong: Sequence[int]) -> list[str]:
        """What suggests that the generators are not a positive and a negative one.

        Args:
            right: Rows of right trajectories.
            wrong: Rows of wrong trajectories.
        """
        if self.largest_difference == 0:
            return [
                'the positive and the negative generator are equal: the scores are their probabilities, and nothing '
                'is contrasted. Train both'
            ]
        of_right, of_wrong = (float(self.margins[list(rows)].mean()) for rows in (right, wrong))
        if of_right <= of_wrong:
            return [
                'the positive generator prefers the wrong trajectories to the right ones more than the negative one '
                f'does (mean margins of a token: right {of_right:.4f}, wrong {of_wrong:.4f} nats): are both '
                'exchanged? Otherwise, train them for longer'
            ]
        return []


@torch.no_grad()
def score_trajectories(
    base: Any,
    positive: Any,
    negative: Any,
    trajectories: Trajectories,
    settings: Mapping[str, Any],
    contrast: float = 1.0,
    batch_size: int = 16,
    progress: Callable[[int], object] | None = None,
) -> TokenScores:
    """Score trajectories.

    Args:
        base: Generator of the trajectories, an :class:`~addp_mm.models.selfsup.ADDP` in eval mode.
            It replays the pixels.
        positive: Generator that was trained on right trajectories.
        negative: Generator that was trained on wrong ones.
        trajectories: Of N images.
        settings: Settings of the trajectories.
        contrast: See :func:`~addp_mm.alignment.contrastive_scores`. Defaults to 1.
        batch_size: Trajectories at a time. Defaults to 16.
        progress: Called after each batch with its number of trajectories. Defaults to None.
    """
    device = base.tokenizer.codebook.device
    sampler = sampler_of(settings, base, base.latent_size)
    scores, margins, largest = [], [], 0.0
    for start in range(0, len(trajectories), batch_size):
        own = trajectories[start : start + batch_size].to(device)
        with precision_of_sampling(settings, device):
            batch = ReplayedBatch.of(sampler, own)
            better, worse = batch.logits(positive), batch.logits(negative)
        ids = batch.kept_ids
        scores.append(batch.per_token(contrastive_scores(better, worse, ids, contrast)).cpu())
        margin = batch.log_probs(better) - batch.log_probs(worse)
        margins.append(mean_over_tokens(margin, own.generated).cpu())
        largest = max(largest, float((better - worse).abs().max()))
        if progress is not None:
            progress(len(own))
    return TokenScores(torch.cat(scores), torch.cat(margins), largest)
