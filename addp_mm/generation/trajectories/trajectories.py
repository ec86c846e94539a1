# Copyright (c) addp_mm contributors. Apache-2.0.
"""The decisions of the sampler for several images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from addp_mm.errors import UserError

#: ``kept_at`` of tokens that were known before the first step.
KNOWN = -1


class TrajectoryError(UserError, ValueError):
    """Trajectories that are damaged, or that belong to another model, tokenizer or sampler."""


@dataclass(frozen=True)
class Trajectories:
    """What the sampler decided for N images of L tokens.

    With the sampler and its model, they determine all states of the sampling: before step t, the
    positions with ``kept_at >= t`` are masked.

    Args:
        ids: Final ids, (N, L) int64.
        kept_at: Number of the step (from 0) that kept each token, (N, L) int64; -1 for tokens that
            were known from the start.
        log_probs: Log-probability of each kept token as the sampler saw it, (N, L) float32; 0 for
            tokens that were known from the start.
        labels: Class of each image, (N,) int64; -1 is "no class".
    """

    ids: Tensor
    kept_at: Tensor
    log_probs: Tensor
    labels: Tensor

    @classmethod
    def of(cls, batch: Mapping[str, Tensor]) -> Trajectories:
        """The trajectories of a batch that has the fields of this class by name, and maybe more."""
        return cls(*(batch[field.name] for field in fields(cls)))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> Trajectories:
        """The trajectories of several images."""
        return Trajectories(*(getattr(self, field.name)[rows] for field in fields(self)))

    def to(self, device: torch.device | str) -> Trajectories:
        """The same trajectories on a device."""
        return Trajectories(*(getattr(self, field.name).to(device) for field in fields(self)))

    @property
    def num_steps(self) -> int:
        """Number of steps up to the last one that kept a token, which the last step always does."""
        return int(self.kept_at.max()) + 1

    @property
    def generated(self) -> Tensor:
        """Where the sampler has chosen the token, (N, L) bool."""
        return self.kept_at != KNOWN

    def check(self, num_tokens: int, num_steps: int, codebook_size: int, name: str = 'the trajectories') -> None:
        """Check that all numbers are in their ranges.

        Args:
            num_tokens: L of the model.
            num_steps: Steps of the sampler.
            codebook_size: Number of codes.
            name: What the error calls them. Defaults to 'the trajectories'.

        Raises:
            TrajectoryError: A shape or a number is wrong.
        """
        shape = (len(self.ids), num_tokens)
        if any(tuple(part.shape) != shape for part in (self.ids, self.kept_at, self.log_probs)):
            raise TrajectoryError(
                f'{name}: ids, kept_at and log_probs must be (N, {num_tokens}), got {tuple(self.ids.shape)}, '
                f'{tuple(self.kept_at.shape)} and {tuple(self.log_probs.shape)}'
            )
        ranges = dict(ids=(self.ids, 0, codebook_size - 1), kept_at=(self.kept_at, KNOWN, num_steps - 1))
        for key, (values, low, high) in ranges.items():
            if len(values) and (values.min() < low or values.max() > high):
                raise TrajectoryError(
                    f'{name}: {key} must be from {low} to {high}, got {int(values.min())} to {int(values.max())}'
                )
        if not (self.log_probs <= 0).all():  # also NaN
            raise TrajectoryError(f'{name}: a log-probability is positive or NaN')


def join_trajectories(parts: Sequence[Trajectories]) -> Trajectories:
    """Concatenate trajectories.

    Args:
        parts: At least one.
    """
    return Trajectories(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Trajectories)))
