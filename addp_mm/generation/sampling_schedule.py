# Copyright (c) addp_mm contributors. Apache-2.0.
"""Options of the steps of generation: how many tokens are kept, which, and how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property, partial
from numbers import Integral, Real
from typing import Any

from addp_mm.diffusion import annealed_temperature, cosine_ratio, linear_ratio, power_ratio
from addp_mm.errors import ConfigError, first_few, suggest
from addp_mm.finite import is_finite

Ratio = Callable[[int, int], float]
RATIOS: dict[str, Ratio] = dict(cosine=cosine_ratio, linear=linear_ratio)
ORDERS = ('confidence', 'halton')
_ROUNDING = 1e-6


@dataclass(frozen=True)
class SamplingSchedule:
    """The options of :class:`~addp_mm.generation.AlternatingSampler` that decide on its steps.

    The defaults are those of the published code.

    Args:
        num_steps: Number of steps N. Defaults to 20.
        ratio: Share of positions that stay masked after a step: 'cosine', 'linear', 'power:P' (1 −
            ((step + 1) / N)^P, such as 'power:2'), or a function from (step, N) to the share. The
            last step keeps all tokens, whatever the share. Defaults to 'cosine'.
        temperature: Scale of the Gumbel noise on the confidence. Order 'halton' does not use it.
            Defaults to 6.
        anneal: Whether the temperature falls to zero, as ``temperature * (1 - (step + 1) / N)``, or
            stays constant. Defaults to True.
        order: Which tokens a step keeps. 'confidence': the most confident draws (MaskGIT, arXiv
            2202.04200). 'halton': the next positions of a Halton sequence, the same for all images
            (arXiv 2503.17076). Defaults to 'confidence'.
        top_p: Ids are drawn from the most likely codes that together reach this probability.
            Defaults to 1: from all codes.
        top_k: Ids are drawn from so many most likely codes, before ``top_p`` is applied. Defaults
            to None: from all codes.

    Raises:
        ConfigError: An option is out of its range, or the shares rise from one step to the next.

    Example:
        >>> SamplingSchedule(num_steps=4, ratio='linear').shares
        (0.75, 0.5, 0.25, 0.0)
    """

    num_steps: int = 20
    ratio: str | Ratio = 'cosine'
    temperature: float = 6.0
    anneal: bool = True
    order: str = 'confidence'
    top_p: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        if not _is_whole(self.num_steps) or self.num_steps < 1:
            raise ConfigError(f'num_steps must be a whole number of at least 1, got {self.num_steps!r}')
        if not _is_number(self.temperature) or self.temperature < 0:
            raise ConfigError(f'temperature must be a number of at least 0, got {self.temperature!r}')
        if self.order not in ORDERS:
            raise ConfigError(f'order must be {" or ".join(map(repr, ORDERS))}, got {self.order!r}')
        if not _is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise ConfigError(f'top_p must be a number in (0, 1], got {self.top_p!r}')
        if self.top_k is not None and (not _is_whole(self.top_k) or self.top_k < 1):
            raise ConfigError(f'top_k must be None or a whole number of at least 1, got {self.top_k!r}')
        _check_shares(self.shares, self.ratio)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> SamplingSchedule:
        """The schedule with these options.

        Args:
            options: By name, from a config or a caller; a name may be misspelt.

        Raises:
            ConfigError: There is no option of that name, or its value is wrong.
        """
        names = [field.name for field in fields(cls)]
        unknown = [name for name in options if name not in names]
        if unknown:
            raise ConfigError(
                f'the sampler has no option {first_few(unknown)}{suggest(unknown[0], names)}; its options are '
                f'{", ".join(names)}'
            )
        return cls(**options)

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """Share of positions that stay masked after each step, as ``ratio`` gives it."""
        ratio = self.ratio if callable(self.ratio) else _named_ratio(self.ratio)
        return tuple(ratio(step, self.num_steps) for step in range(self.num_steps))

    def noise_scale(self, step: int) -> float:
        """Scale of the Gumbel noise at ``step`` (from 0)."""
        return annealed_temperature(step, self.num_steps, self.temperature) if self.anneal else self.temperature


def _named_ratio(name: str) -> Ratio:
    if name in RATIOS:
        return RATIOS[name]
    family, _, text = str(name).partition(':')
    try:
        exponent = float(text)
    except ValueError:
        exponent = math.nan
    if family != 'power' or not 0 < exponent < math.inf:
        raise ConfigError(
            "ratio must be 'cosine', 'linear', 'power:P' with a positive number P, or a function from (step, "
            f'number of steps) to the share that stays masked, got {name!r}'
        )
    return partial(power_ratio, exponent=exponent)


def _check_shares(shares: tuple[float, ...], ratio: str | Ratio) -> None:
    before = 1.0
    for step, share in enumerate(shares):
        where = f'at step {step} of {len(shares)}'
        if not _is_number(share) or not -_ROUNDING <= share <= 1 + _ROUNDING:
            raise ConfigError(f'ratio must give a share from 0 to 1; {ratio!r} gives {share!r} {where}')
        if share > before + _ROUNDING:
            raise ConfigError(
                f'ratio must not rise, because kept tokens are not masked again; {ratio!r} gives {share!r} {where}, '
                f'and {before!r} before'
            )
        before = share


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and is_finite(value)
