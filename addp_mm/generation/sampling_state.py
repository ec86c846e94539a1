# Copyright (c) addp_mm contributors. Apache-2.0.
"""What generation hands on from step to step, and in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SamplingStep:
    """State of a batch after a step.

    Args:
        index: Steps taken so far; 0 before the first.
        ids: Token ids, (B, L) int64. What stands at masked places is a draw that was not kept.
        mask: (B, L) bool, True = masked.
        images: Decoded pixels, (B, C, H, W) in [0, 1]; masked places show the expected latents.
        confidence: Log-probability of each drawn id, (B, L) float32, +inf at places that were known
            before the step.
        num_masked: Places masked before the first step, (B,) int64.
    """

    index: int
    ids: Tensor
    mask: Tensor
    images: Tensor
    confidence: Tensor
    num_masked: Tensor

    def cpu(self) -> SamplingStep:
        """The same on the CPU."""
        return SamplingStep(
            index=self.index,
            ids=self.ids.cpu(),
            mask=self.mask.cpu(),
            images=self.images.cpu(),
            confidence=self.confidence.cpu(),
            num_masked=self.num_masked.cpu(),
        )


@dataclass(frozen=True)
class Samples:
    """Finished images.

    Args:
        images: (N, C, H, W) in [0, 1].
        ids: (N, L) int64.
        steps: All states, from the start to the end, of the whole set of images on the CPU; empty
            unless asked for.
    """

    images: Tensor
    ids: Tensor
    steps: tuple[SamplingStep, ...] = ()


def join_steps(states: Sequence[SamplingStep]) -> SamplingStep:
    """One state of all images from those of several batches after the same step."""

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(state, name) for state in states])

    return SamplingStep(
        index=states[0].index,
        ids=joined('ids'),
        mask=joined('mask'),
        images=joined('images'),
        confidence=joined('confidence'),
        num_masked=joined('num_masked'),
    )
