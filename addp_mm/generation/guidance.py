# Copyright (c) addp_mm contributors. Apache-2.0.
"""Classifier-free guidance of the logits of a class-conditional model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from addp_mm.errors import ConfigError

# From the progress, which is (step + 1) / number of steps, to the share of the scale.
SHAPES: dict[str, Callable[[float], float]] = dict(
    constant=lambda progress: 1.0,  # noqa: ARG005  # the others use it
    linear=lambda progress: progress,
    cosine=lambda progress: (1 - math.cos(math.pi * progress)) / 2,
)


@dataclass(frozen=True)
class Guidance:
    """Moves the logits of a class away from the logits without a class (arXiv 2207.12598).

    ``logits = unconditional + (1 + w) * (conditional - unconditional)``, so that w = 0 gives the
    conditional logits.

    Args:
        scale: Largest weight w. Defaults to 0: no guidance.
        shape: How w grows with the progress p = (step + 1) / N. 'constant': w = scale. 'linear': w
            = scale · p, as Muse (arXiv 2301.00704). 'cosine': w = scale · (1 − cos(π·p)) / 2, as
            MDTv2 (arXiv 2303.14389). The last step always has w = scale. Defaults to 'constant'.

    Raises:
        ConfigError: The scale is negative or not finite, or the shape is unknown.

    Example:
        >>> [Guidance(scale=2.0, shape='linear').weight(step, 4) for step in range(4)]
        [0.5, 1.0, 1.5, 2.0]
    """

    scale: float = 0.0
    shape: str = 'constant'

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise ConfigError(f'the scale of the guidance must be finite and at least 0, got {self.scale}')
        if self.shape not in SHAPES:
            raise ConfigError(
                f'the shape of the guidance must be one of {", ".join(map(repr, SHAPES))}, got {self.shape!r}'
            )

    def weight(self, step: int, num_steps: int) -> float:
        """The weight w at ``step`` (from 0) of ``num_steps``."""
        return self.scale * SHAPES[self.shape]((step + 1) / num_steps)


def guided_logits(conditional: Tensor, unconditional: Tensor, weight: float) -> Tensor:
    """Logits under guidance of this weight, in float32.

    Args:
        conditional: Logits of the class, of any shape.
        unconditional: Logits without a class, of the same shape.
        weight: w; 0 gives ``conditional`` up to rounding.
    """
    conditional, unconditional = conditional.float(), unconditional.float()
    return unconditional + (1 + weight) * (conditional - unconditional)
