# Copyright (c) addp_mm contributors. Apache-2.0.
"""A batch of trajectories as one batch of states, and the tokens that each state decides on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from addp_mm.alignment.token_scores import token_log_probs
from addp_mm.diffusion.token_space import NO_CLASS
from addp_mm.generation.alternating_sampler import AlternatingSampler
from addp_mm.generation.trajectories.replay import replay
from addp_mm.generation.trajectories.trajectories import Trajectories


@dataclass(frozen=True)
class ReplayedBatch:
    """All states of B trajectories of S steps, which any model can judge.

    Attributes:
        trajectories: The trajectories, on the device of the model.
        images: Pixels that the sampler saw, (S * B, C, H, W), step by step.
        mask: Positions that were masked, (S * B, L) bool.
        kept: Positions whose token the step kept, (S * B, L) bool. Each generated token of a
            trajectory is kept once.
    """

    trajectories: Trajectories
    images: Tensor
    mask: Tensor
    kept: Tensor

    @classmethod
    def of(cls, sampler: AlternatingSampler, trajectories: Trajectories) -> ReplayedBatch:
        """Replay trajectories.

        Args:
            sampler: With the model that generated them; see
                :func:`~addp_mm.generation.trajectories.replay.replay`.
            trajectories: On the device of the model.
        """
        steps = list(replay(sampler, trajectories))
        return cls(
            trajectories,
            torch.cat([step.state.images for step in steps]),
            torch.cat([step.state.mask for step in steps]),
            torch.cat([step.kept for step in steps]),
        )

    def logits(self, model: Any) -> Tensor:
        """Logits of the M kept tokens under a model, without guidance, (M, K).

        They are in the order of ``kept``. The model sees the recorded pixels.

        Args:
            model: Has ``predict_tokens``.
        """
        steps = len(self.images) // len(self.trajectories)
        labels = self.trajectories.labels.repeat(steps)
        known = dict(labels=labels) if (labels != NO_CLASS).any() else {}
        logits: Tensor = model.predict_tokens(self.images, self.trajectories.ids.repeat(steps, 1), self.mask, **known)
        return logits[self.kept]

    def log_probs(self, logits: Tensor) -> Tensor:
        """Log-probability of each token of the trajectories, (B, L); 0 at known tokens.

        Args:
            logits: Result of :meth:`logits`.
        """
        return self.per_token(token_log_probs(logits, self.kept_ids))

    @property
    def kept_ids(self) -> Tensor:
        """Ids of the kept tokens, (M,), in the order of ``kept``."""
        steps = len(self.images) // len(self.trajectories)
        return self.trajectories.ids.repeat(steps, 1)[self.kept]

    def per_token(self, values: Tensor) -> Tensor:
        """Put a number of each kept token (M,) to its place, (B, L); 0 at known tokens."""
        batch_size, num_tokens = self.trajectories.ids.shape
        rows, positions = self.kept.nonzero(as_tuple=True)
        result = torch.zeros(batch_size, num_tokens, dtype=values.dtype, device=values.device)
        return result.index_put((rows % batch_size, positions), values)
