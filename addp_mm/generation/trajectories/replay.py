# Copyright (c) addp_mm contributors. Apache-2.0.
"""Replay of trajectories: the states and the logits that the sampler saw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from addp_mm.diffusion.token_space import NO_CLASS
from addp_mm.generation.alternating_sampler import AlternatingSampler
from addp_mm.generation.sampling_state import SamplingStep
from addp_mm.generation.trajectories.trajectories import KNOWN, Trajectories


@dataclass(frozen=True)
class ReplayedStep:
    """A step of the sampler.

    Attributes:
        state: What the sampler saw: pixels, ids and mask before the step.
        logits: Of the model, under guidance if there is one, (B, L, codebook_size).
        kept: Positions whose token the step kept, (B, L) bool.
    """

    state: SamplingStep
    logits: Tensor
    kept: Tensor


@torch.no_grad()
def replay(sampler: AlternatingSampler, trajectories: Trajectories) -> Iterator[ReplayedStep]:
    """Repeat the steps of trajectories without noise.

    The pixels before a step depend on what the model predicted before, so that the model of the
    sampler must be that of the trajectories. Then states and logits are those of the sampling, up
    to the rounding of another batch size.

    Args:
        sampler: With the model, the schedule and the guidance of the trajectories.
        trajectories: Of B images, on the device of the model.

    Yields:
        The steps from the first to the last one that kept a token.

    Raises:
        TrajectoryError: The trajectories do not fit the sampler.
    """
    trajectories.check(sampler.num_tokens, sampler.schedule.num_steps, len(sampler.model.tokenizer.codebook))
    ids, kept_at = trajectories.ids, trajectories.kept_at
    labels = trajectories.labels if (trajectories.labels != NO_CLASS).any() else None
    state = sampler.start(ids, kept_at != KNOWN, labels)
    num_steps = trajectories.num_steps
    for step in range(num_steps):
        logits = sampler.logits(state, labels)
        yield ReplayedStep(state, logits, kept_at == step)
        if step + 1 < num_steps:
            state = sampler.next_state(state, logits, ids, kept_at > step)
