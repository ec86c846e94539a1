# Copyright (c) addp_mm contributors. Apache-2.0.
"""Fine-tuning of a generator on chosen trajectories."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from addp_mm.alignment.generator_tuning import GeneratorTuning
from addp_mm.alignment.token_metrics import mean_over_tokens, token_divergence
from addp_mm.generation.trajectories.trajectories import Trajectories
from addp_mm.registry import MODELS


@MODELS.register_module()
class LikelihoodTuning(GeneratorTuning):
    """Makes the decisions of given trajectories more likely.

    Right trajectories give the positive model of cDPO (arXiv 2411.19943), wrong ones the negative
    model. The positive model is supervised fine-tuning, too.

    A batch is ``dict(trajectories=…)`` of :class:`~addp_mm.alignment.datasets.ChosenTrajectories`.
    """

    def loss(self, trajectories: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loss of a batch.

        Args:
            trajectories: Fields of :class:`~addp_mm.generation.trajectories.Trajectories`.

        Returns:
            ``loss``: mean negative log-probability of the generated tokens of a trajectory, in
            nats. For the log: ``kl``, the mean divergence of a prediction from that of the frozen
            generator, in nats.
        """
        batch = self.replay(Trajectories.of(trajectories))
        logits = batch.logits(self.generator)
        likelihood = mean_over_tokens(batch.log_probs(logits), batch.trajectories.generated)
        return dict(loss=-likelihood.mean(), kl=token_divergence(logits.detach(), batch.frozen_logits).mean())
