# Copyright (c) addp_mm contributors. Apache-2.0.
"""A batch of trajectories as one batch of states, and the tokens that each state decides on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from addp_mm.alignment.token_scores import token_log_probs
from addp_mm.diffusion.token_space import NO_CLASS
from addp_mm.generation.alternating_sampler import AlternatingSampler
from addp_mm.generation.trajectories.replay import replay
from addp_mm.generation.trajectories.trajectories import Trajectories, join_trajectories


@dataclass(frozen=True)
class ReplayedBatch:
    """The S states of B trajectories in which the sampler kept a token; any model can judge them.

    Attributes:
        trajectories: The trajectories, on the device of the model.
        rows: To which trajectory each state belongs, (S,) int64.
        images: Pixels that the sampler saw, (S, C, H, W).
        mask: Positions that were masked, (S, L) bool.
        kept: Positions whose token was kept, (S, L) bool. Each generated token of a trajectory is
            kept once.
        frozen_logits: Logits of the generator of the trajectories, without guidance, (M, K), see
            :meth:`logits`.
    """

    trajectories: Trajectories
    rows: Tensor
    images: Tensor
    mask: Tensor
    kept: Tensor
    frozen_logits: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, sampler: AlternatingSampler, trajectories: Trajectories) -> ReplayedBatch:
        """Replay trajectories.

        Args:
            sampler: With the model that generated them; see
                :func:`~addp_mm.generation.trajectories.replay.replay`.
            trajectories: On the device of the model.
        """
        parts = []
        for step in replay(sampler, trajectories):
            rows = step.kept.any(1).nonzero()[:, 0]
            parts.append((rows, step.state.images[rows], step.state.mask[rows], step.kept[rows]))
        rows, images, mask, kept = (torch.cat(part) for part in zip(*parts, strict=True))
        batch = cls(trajectories, rows, images, mask, kept, torch.empty(0))
        return replace(batch, frozen_logits=batch.logits(sampler.model))

    def logits(self, model: Any) -> Tensor:
        """Logits of the M kept tokens under a model, without guidance, (M, K).

        They are in the order of ``kept``. The model sees the recorded pixels.

        Args:
            model: Has ``predict_tokens``.
        """
        labels = self.trajectories.labels[self.rows]
        known = dict(labels=labels) if (labels != NO_CLASS).any() else {}
        logits: Tensor = model.predict_tokens(self.images, self.trajectories.ids[self.rows], self.mask, **known)
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
        return self.trajectories.ids[self.rows][self.kept]

    def per_token(self, values: Tensor) -> Tensor:
        """Put a number of each kept token (M,) to its place, (B, L); 0 at known tokens."""
        states, positions = self.kept.nonzero(as_tuple=True)
        result = torch.zeros(self.trajectories.ids.shape, dtype=values.dtype, device=values.device)
        return result.index_put((self.rows[states], positions), values)

    def to(self, device: torch.device | str) -> ReplayedBatch:
        """The same batch on a device."""
        tensors = (self.rows, self.images, self.mask, self.kept, self.frozen_logits)
        return ReplayedBatch(self.trajectories.to(device), *(part.to(device) for part in tensors))

    @property
    def num_bytes(self) -> int:
        """Memory of the states and the logits."""
        return sum(part.nbytes for part in (self.images, self.mask, self.kept, self.frozen_logits))


def join_batches(batches: Sequence[ReplayedBatch]) -> ReplayedBatch:
    """Concatenate batches.

    Args:
        batches: At least one.
    """
    starts = [0]
    for batch in batches[:-1]:
        starts.append(starts[-1] + len(batch.trajectories))
    return ReplayedBatch(
        join_trajectories([batch.trajectories for batch in batches]),
        torch.cat([batch.rows + start for batch, start in zip(batches, starts, strict=True)]),
        *(
            torch.cat([getattr(batch, name) for batch in batches])
            for name in ('images', 'mask', 'kept', 'frozen_logits')
        ),
    )
