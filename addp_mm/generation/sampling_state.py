# Copyright (c) addp_mm contributors. Apache-2.0.
"""State of generation after a step, and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from PIL import Image
from torch import Tensor

from addp_mm.generation.figures import to_uint8
from addp_mm.generation.trajectories.trajectories import Trajectories


@dataclass(frozen=True)
class SamplingStep:
    """State of a batch after a step.

    Attributes:
        index: Number of steps taken; 0 before the first.
        ids: Token ids, (B, L) int64. At masked positions they are draws that were not kept.
        mask: (B, L) bool, True where masked.
        images: Decoded pixels, (B, C, H, W) in [0, 1]; masked positions show the expected latents.
        confidence: Log-probability of each drawn id, (B, L) float32; +inf at positions that were
            known before the step.
        num_masked: Number of positions masked before the first step, (B,) int64.
        kept_at: Number of the step (from 0) that kept each token, (B, L) int64; -1 at positions
            that are masked, or were known from the start.
    """

    index: int
    ids: Tensor
    mask: Tensor
    images: Tensor
    confidence: Tensor
    num_masked: Tensor
    kept_at: Tensor

    def cpu(self) -> SamplingStep:
        """The same state on the CPU."""
        return join_steps([self], 'cpu')


@dataclass(frozen=True)
class Samples:
    """Generated images.

    Attributes:
        images: (N, C, H, W) in [0, 1].
        ids: (N, L) int64.
        steps: States of all images, from the start to the end, on the CPU; empty without
            ``keep_steps``.
        trajectories: What the sampler decided, on the CPU; None if an image has several tiles.
    """

    images: Tensor
    ids: Tensor
    steps: tuple[SamplingStep, ...] = ()
    trajectories: Trajectories | None = None

    def to_pil(self) -> list[Image.Image]:
        """The N images as RGB images of Pillow.

        Of images with more than three channels the first three are shown; images with fewer repeat
        their last channel.
        """
        return [Image.fromarray(image) for image in to_uint8(self.images)]


def join_steps(states: Sequence[SamplingStep], device: torch.device | str | None = None) -> SamplingStep:
    """Concatenate the states of several batches after the same step.

    Args:
        states: At least one.
        device: Device of the result. Defaults to None: that of the states.
    """
    names = [field.name for field in fields(SamplingStep) if field.name != 'index']
    joined = {name: torch.cat([getattr(state, name) for state in states]).to(device) for name in names}
    return SamplingStep(index=states[0].index, **joined)
