# Copyright (c) addp_mm contributors. Apache-2.0.
"""Fine-tuning of a generator on pairs of trajectories: DPO, TokenDPO, RPO and cDPO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from addp_mm.alignment.generator_tuning import GeneratorTuning
from addp_mm.alignment.preference_loss import PreferenceLoss, SequenceLogProbs
from addp_mm.alignment.replayed_batch import ReplayedBatch
from addp_mm.alignment.token_metrics import preference_metrics, token_divergence, weight_on_top_tenth
from addp_mm.alignment.token_scores import SIDES, Sides, score_ranks, token_weights
from addp_mm.errors import ConfigError
from addp_mm.generation.trajectories.trajectories import Trajectories, join_trajectories
from addp_mm.registry import MODELS


@MODELS.register_module()
class PreferenceTuning(GeneratorTuning):
    """Prefers the chosen trajectory of each pair to the rejected one.

    A batch is ``dict(chosen=…, rejected=…)`` of
    :class:`~addp_mm.alignment.datasets.PreferencePairs`, each with the fields of the trajectories
    and, for ``weighted`` other than 'none', ``scores`` (B, L).

    Args:
        generator: See :class:`GeneratorTuning`.
        trajectories: See :class:`GeneratorTuning`.
        loss: Arguments of :class:`~addp_mm.alignment.PreferenceLoss`. Defaults to None: DPO.
        weighted: Which sides have token weights: 'none', 'rejected' or 'both'. Defaults to 'none'.
        weights: What the weights are made of: 'score', as in the paper, or 'rank', the rank of the
            score in its image; see :func:`~addp_mm.alignment.token_scores.score_ranks`. Weights of
            ranks are twice as large, so that their mean is 1. Defaults to 'score'.
        cache_gib: See :class:`GeneratorTuning`. Defaults to 0.
        data_preprocessor: See :class:`GeneratorTuning`. Defaults to None.
        init_cfg: How mmengine initialises the weights. Defaults to None.

    Raises:
        ConfigError: An option is unknown or out of its range.
    """

    def __init__(
        self,
        generator: dict | nn.Module,
        trajectories: str,
        loss: Mapping | None = None,
        weighted: Sides = 'none',
        weights: Literal['score', 'rank'] = 'score',
        cache_gib: float = 0.0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(generator, trajectories, cache_gib, data_preprocessor, init_cfg)
        if weighted not in SIDES:
            raise ConfigError(f'weighted must be one of {SIDES}, got {weighted!r}')
        if weights not in ('score', 'rank'):
            raise ConfigError(f"weights must be 'score' or 'rank', got {weights!r}")
        self.preference_loss, self.weighted, self.weights = PreferenceLoss(**(loss or {})), weighted, weights

    def loss(self, chosen: Mapping[str, Tensor], rejected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loss of a batch of pairs.

        Args:
            chosen: Fields of :class:`~addp_mm.generation.trajectories.Trajectories` of B
                trajectories, and ``scores`` (B, L).
            rejected: The same of the rejected ones.

        Returns:
            ``loss``. For the log: the rewards of
            :func:`~addp_mm.alignment.token_metrics.preference_metrics`; ``kl``, the mean divergence
            of a prediction from that of the frozen generator, in nats; with weights,
            ``weight_on_top_tenth``, of the rejected tokens.

        Raises:
            ConfigError: The batch has no scores.
        """
        batch = self.replay(join_trajectories([Trajectories.of(chosen), Trajectories.of(rejected)]))
        logits = batch.logits(self.generator)
        policy, reference = batch.log_probs(logits).chunk(2), batch.log_probs(batch.frozen_logits).chunk(2)
        masks, divergence = batch.trajectories.generated.chunk(2), self._divergence(batch, logits)
        weights = self._weights('chosen', chosen, masks[0]), self._weights('rejected', rejected, masks[1])
        better, worse = (
            SequenceLogProbs(policy[side], reference[side], masks[side], weights[side], divergence[side])
            for side in range(2)
        )
        found = dict(
            loss=self.preference_loss(better, worse),
            kl=token_divergence(logits.detach(), batch.frozen_logits).mean(),
            **preference_metrics(policy[0] - reference[0], policy[1] - reference[1], self.preference_loss.beta),
        )
        if worse.weights is not None:
            found['weight_on_top_tenth'] = weight_on_top_tenth(worse.weights, worse.mask)
        return found

    def _weights(self, name: Literal['chosen', 'rejected'], side: Mapping[str, Tensor], mask: Tensor) -> Tensor | None:
        if self.weighted == 'none':
            return None
        if 'scores' not in side:
            raise ConfigError(
                f'weighted={self.weighted!r} needs the scores of the trajectories: give the dataset scores=…, a file '
                "of addp_mm.alignment.score_files.write_scores, or train without weights: weighted='none'"
            )
        if self.weights == 'score':
            return token_weights(side['scores'], name, self.weighted)
        if name == 'chosen' and self.weighted == 'rejected':
            return torch.ones_like(side['scores'])
        return 2 * token_weights(score_ranks(side['scores'], mask), name, self.weighted)

    def _divergence(self, batch: ReplayedBatch, logits: Tensor) -> Sequence[Tensor | None]:
        """The sequential divergence of both sides, (B,) each, if the loss uses it."""
        if not self.preference_loss.kl_weight:
            return (None, None)
        return batch.per_token(token_divergence(batch.frozen_logits, logits)).sum(1).chunk(2)
