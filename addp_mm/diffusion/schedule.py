# Copyright (c) addp_mm contributors. Apache-2.0.
"""Noise levels of training: the share of masked tokens, its probability and the next level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NoiseLevel:
    """A noise level and the noisier one after it.

    Attributes:
        step: Index of the level in its schedule.
        next_step: Index of the next level, at least ``step``.
        ratio: Share of masked tokens at ``step``.
        next_ratio: Share of masked tokens at ``next_step``.
    """

    step: int
    next_step: int
    ratio: float
    next_ratio: float


@dataclass(frozen=True)
class NoiseDraw:
    """The random part of one training step.

    Args:
        level: The noise level of the batch.
        generator: Source of the masks; on any device.
    """

    level: NoiseLevel
    generator: torch.Generator

    @classmethod
    def sample(cls, schedule: NoiseSchedule, generator: torch.Generator) -> NoiseDraw:
        """Draw a level from a schedule; the masks follow from the same generator."""
        return cls(schedule.sample(generator), generator)


class NoiseSchedule:
    """Discrete noise levels with probabilities (ADDP, arXiv 2306.05423, and its released code).

    The levels are the ratios r = cos(πk / 2n), k = 0 … n, with ``min_ratio`` ≤ r < 1, ascending.
    Their probabilities follow the normal density with ``mean`` and ``std``, truncated to
    [``min_ratio``, 1].

    Args:
        num_levels: n. Defaults to 100.
        min_ratio: Smallest share of masked tokens. Defaults to 0.5.
        mean: Mean of the density. Defaults to 0.55.
        std: Standard deviation of the density. Defaults to 0.25.
        max_stride: The next level is 1 to ``max_stride`` levels further, at most the last one.
            Defaults to 5.

    Attributes:
        ratios: Shares of masked tokens, ascending, (levels,) float64.
        probabilities: Probabilities of the levels, (levels,) float64.

    Raises:
        ValueError: No level is left, or a number is out of its range.

    Example:
        >>> schedule = NoiseSchedule()
        >>> len(schedule), round(float(schedule.ratios[0]), 3)
        (66, 0.509)
        >>> level = schedule.sample(torch.Generator().manual_seed(0))
        >>> level.next_ratio >= level.ratio
        True
    """

    def __init__(
        self, num_levels: int = 100, min_ratio: float = 0.5, mean: float = 0.55, std: float = 0.25, max_stride: int = 5
    ) -> None:
        if num_levels < 1 or max_stride < 1 or std <= 0:
            raise ValueError(
                f'num_levels and max_stride must be at least 1 and std positive, got {num_levels}, '
                f'{max_stride} and {std}'
            )
        ratios = torch.cos(torch.arange(num_levels + 1, dtype=torch.float64) * math.pi / (2 * num_levels)).flip(0)
        ratios = ratios[(ratios >= min_ratio) & (ratios < 1)]
        if not len(ratios):
            raise ValueError(f'no level has {min_ratio} <= ratio < 1 with num_levels={num_levels}')
        density = torch.exp(-0.5 * ((ratios - mean) / std) ** 2)
        if not 0 < density.sum() < math.inf:
            raise ValueError(f'a normal density of mean {mean} and std {std} is zero between {min_ratio} and 1')
        self.ratios = ratios
        self.probabilities = density / density.sum()
        self.max_stride = max_stride

    def __len__(self) -> int:
        return len(self.ratios)

    def level(self, step: int, next_step: int) -> NoiseLevel:
        """The level at ``step`` followed by the one at ``next_step``.

        Raises:
            ValueError: Not 0 <= step <= next_step < number of levels.
        """
        if not 0 <= step <= next_step < len(self):
            raise ValueError(f'steps must satisfy 0 <= step <= next_step < {len(self)}, got {step} and {next_step}')
        return NoiseLevel(step, next_step, float(self.ratios[step]), float(self.ratios[next_step]))

    def sample(self, generator: torch.Generator) -> NoiseLevel:
        """Draw a level from the probabilities, and the stride to its next level uniformly."""
        draw = torch.rand(2, generator=generator, device=generator.device, dtype=torch.float64).cpu()
        cumulative = self.probabilities.cumsum(0)
        step = int(torch.searchsorted(cumulative, draw[:1] * cumulative[-1], right=True).clamp(max=len(self) - 1))
        stride = 1 + int(draw[1] * self.max_stride)
        return self.level(step, min(step + stride, len(self) - 1))


def masked_count(num_tokens: int, ratio: float) -> int:
    """Number of masked tokens, ``ceil(num_tokens * ratio)``."""
    return math.ceil(num_tokens * ratio)


def nested_masks(
    num_tokens: int,
    level: NoiseLevel,
    batch_size: int,
    generator: torch.Generator,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """Masks of a level and of its next one from one noise draw: the first is inside the second.

    Args:
        num_tokens: Number of tokens L.
        level: Gives both ratios.
        batch_size: Number of masks B; all have the same number of masked positions.
        generator: Source of the noise, on any device.
        device: Device of the masks. Defaults to None: that of the generator.

    Returns:
        ``mask_t`` and ``mask_next``, each (B, L), bool, True where masked.
    """
    noise = torch.rand(batch_size, num_tokens, generator=generator, device=generator.device)
    rank = noise.argsort(dim=1, stable=True).argsort(dim=1).to(device)
    return rank < masked_count(num_tokens, level.ratio), rank < masked_count(num_tokens, level.next_ratio)
