# Copyright (c) addp_mm contributors. Apache-2.0.
"""Whether numbers of tokens that need no rollouts find the tokens that rollouts find."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from scipy.stats import rankdata

from addp_mm.alignment.intervals import statistic_with_interval

_RESAMPLES = 500
_HOPELESS = 0.05  # part of a share of right continuations


@dataclass(frozen=True, eq=False)  # hashable
class ExaminedAnswer:
    """A wrong answer with T tokens.

    Args:
        question: Its question.
        tokens: The tokens.
        shares: Share of right continuations before the first token and after each token, T + 1.
        halves: The same of one half of the rollouts and of the other.
        suspicion: Numbers of the tokens by name, T each; larger where a token is suspected.
    """

    question: str
    tokens: str
    shares: list[float]
    halves: tuple[list[float], list[float]]
    suspicion: dict[str, list[float]]

    @cached_property
    def drops(self) -> np.ndarray:
        """Criticality of each token: how far the share of right continuations falls, (T,)."""
        return -np.diff(self.shares)

    @cached_property
    def critical(self) -> int:
        """Number of the critical token: that with the largest drop."""
        return int(np.argmax(self.drops))

    @cached_property
    def hopeless(self) -> int:
        """Number of the first token after which hardly any continuation is right.

        After it, the share of right continuations is below 5 % of the share before it. If there is
        none, it is the critical token.
        """
        before, after = np.asarray(self.shares[:-1]), np.asarray(self.shares[1:])
        found = np.flatnonzero(after < _HOPELESS * before)
        return int(found[0]) if len(found) else self.critical

    @cached_property
    def half_drops(self) -> list[np.ndarray]:
        """The same of both halves of the rollouts."""
        return [-np.diff(half) for half in self.halves]

    @cached_property
    def numbers(self) -> dict[str, np.ndarray]:
        """``suspicion`` as arrays."""
        return {name: np.asarray(values) for name, values in self.suspicion.items()}

    def as_dict(self) -> dict[str, Any]:
        """Content of a JSON file."""
        return asdict(self)


Statistic = Callable[[Sequence[ExaminedAnswer]], float]


def rank_correlation(name: str, falls_only: bool = False) -> Statistic:
    """Spearman's correlation of a number of tokens with the drop, over the tokens of all answers.

    Args:
        name: Of the number.
        falls_only: Whether a rise of the share counts as no drop. Defaults to False.
    """

    def statistic(answers: Sequence[ExaminedAnswer]) -> float:
        numbers = np.concatenate([answer.numbers[name] for answer in answers])
        return spearman(numbers, _joined([answer.drops for answer in answers], falls_only))

    return statistic


def half_correlation(falls_only: bool = False) -> Statistic:
    """Spearman's correlation of the drops in one half of the rollouts with those in the other.

    Args:
        falls_only: See :func:`rank_correlation`. Defaults to False.
    """

    def statistic(answers: Sequence[ExaminedAnswer]) -> float:
        halves = [_joined([answer.half_drops[half] for answer in answers], falls_only) for half in range(2)]
        return spearman(*halves)

    return statistic


def share_found(name: str, part: float | None = 1 / 3, hopeless: bool = False) -> Statistic:
    """Share of answers whose critical token is among their most suspected tokens.

    Args:
        name: Of the number by which tokens are suspected.
        part: Part of an answer's tokens that is suspected, rounded up; None means one token.
            Defaults to 1/3.
        hopeless: Whether to look for the token ``hopeless`` instead. Defaults to False.
    """

    @cache  # the bootstrap asks for each answer many times
    def is_found(answer: ExaminedAnswer) -> bool:
        numbers, wanted = answer.numbers[name], answer.hopeless if hopeless else answer.critical
        count = 1 if part is None else math.ceil(part * len(numbers))
        return wanted in np.argsort(-numbers, kind='stable')[:count]

    return lambda answers: float(np.mean([is_found(answer) for answer in answers]))


def _joined(drops: Sequence[np.ndarray], falls_only: bool) -> np.ndarray:
    joined = np.concatenate(drops)
    return joined.clip(min=0) if falls_only else joined


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation; equal numbers share their rank. NaN if all numbers are equal."""
    if len(np.unique(one)) < 2 or len(np.unique(other)) < 2:
        return math.nan
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def difference(one: Statistic, other: Statistic) -> Statistic:
    """One statistic minus another one of the same answers.

    Its interval is that of a paired comparison: both statistics have the same resamples.
    """
    return lambda answers: one(answers) - other(answers)


def with_interval(statistic: Statistic, answers: Sequence[ExaminedAnswer], seed: int = 0) -> dict[str, Any]:
    """A statistic and its 95 % confidence interval by the bootstrap over answers.

    Args:
        statistic: The statistic.
        answers: The answers.
        seed: Of the bootstrap. Defaults to 0.

    Returns:
        ``value``, ``low`` and ``high``; the last two are None for one answer, and NaN if the
        statistic of a resample is.
    """
    found = statistic_with_interval(
        lambda rows: statistic([answers[row] for row in rows]), len(answers), _RESAMPLES, seed
    )
    return asdict(found)
