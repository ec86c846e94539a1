# Copyright (c) addp_mm contributors. Apache-2.0.
"""The results of all seeds in one: means, intervals, and tables of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from agreement import (
    ExaminedAnswer,
    Statistic,
    difference,
    half_correlation,
    rank_correlation,
    share_found,
    with_interval,
)
from experiment import SUSPICION

from addp_mm.report.markdown import markdown_table

_KINDS = ('greedy', 'sampled')
_CONTRAST, _BASE = 'contrast', 'base'


def answers_of(results: Sequence[Mapping[str, Any]]) -> list[ExaminedAnswer]:
    """The examined answers of all seeds."""
    return [ExaminedAnswer(**answer) for result in results for answer in result['answers']]


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the results of seeds.

    Args:
        results: From :func:`~experiment.run_seed`.

    Returns:
        ``accuracy``: for each method the mean and the standard deviation over the seeds, greedy and
        sampled, and of the gain over the base model of the same seed. ``agreement``: for each
        number of tokens its rank correlations and shares, see :mod:`agreement`, with intervals.
        ``contrast_minus_base``: the differences of the same between the contrastive scores and the
        base model's probability, with intervals of pairs. ``halves``: the rank correlations of the
        two halves of the rollouts. ``mean_weight``: mean of 1 − s over the tokens of the examined
        answers.
    """
    answers = answers_of(results)
    statistics = {name: _statistics(name) for name in SUSPICION}

    def with_intervals(own: Mapping[str, Statistic]) -> dict[str, dict[str, Any]]:
        return {key: with_interval(one, answers) for key, one in own.items()}

    base = statistics[_BASE]
    differences = {key: difference(one, base[key]) for key, one in statistics[_CONTRAST].items()}
    return dict(
        accuracy={name: _accuracy(results, name) for name in results[0]['accuracy']},
        agreement={name: with_intervals(own) for name, own in statistics.items()},
        contrast_minus_base=with_intervals(differences),
        halves=dict(
            drops=with_interval(half_correlation(), answers),
            falls=with_interval(half_correlation(falls_only=True), answers),
        ),
        mean_weight=float(np.mean(np.concatenate([answer.numbers[_CONTRAST] for answer in answers]))),
    )


def _statistics(name: str) -> dict[str, Statistic]:
    """What is asked of a number of tokens."""
    return dict(
        drops=rank_correlation(name),
        falls=rank_correlation(name, falls_only=True),
        in_top_third=share_found(name),
        is_top=share_found(name, None),
        hopeless_in_top_third=share_found(name, hopeless=True),
    )


def _accuracy(results: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in _KINDS:
        values = np.array([result['accuracy'][name][kind] for result in results])
        gains = values - np.array([result['accuracy']['base'][kind] for result in results])
        found[kind] = dict(mean=values.mean(), std=_std(values), gain=gains.mean(), gain_std=_std(gains))
    return found


def _std(values: np.ndarray) -> float:
    """Standard deviation of a sample; 0 for one value."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def accuracy_table(found: Mapping[str, Any]) -> str:
    """Accuracies in percent, as a table in Markdown."""
    header = ['method', 'greedy', 'gain', 'sampled', 'gain']
    rows = []
    for name, own in found['accuracy'].items():
        cells = [name]
        for kind in _KINDS:
            one = own[kind]
            cells.append(f'{100 * one["mean"]:.1f} ± {100 * one["std"]:.1f}')
            cells.append('–' if name == 'base' else f'{100 * one["gain"]:+.1f} ± {100 * one["gain_std"]:.1f}')
        rows.append(cells)
    return markdown_table(header, rows, numbers=True)


def agreement_table(found: Mapping[str, Any]) -> str:
    """Agreement with the rollouts, as a table in Markdown."""
    header = ['suspected by', 'drops', 'falls', 'in the top third', 'is the top one', 'hopeless one in the top third']
    rows = []
    for name, own in (found['agreement'] | {'contrast − base': found['contrast_minus_base']}).items():
        correlations = [_interval(own[key], '.2f') for key in ('drops', 'falls')]
        shares = [_interval(own[key], '.0%') for key in ('in_top_third', 'is_top', 'hopeless_in_top_third')]
        rows.append([name, *correlations, *shares])
    halves = found['halves']
    rows.append(['half of the rollouts', *(_interval(halves[key], '.2f') for key in halves), *3 * '–'])
    return markdown_table(header, rows, numbers=True)


def learning_rate_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Mean accuracy on the validation questions by learning rate, in percent, over the seeds."""
    tuned = {name: own for name, own in results[0]['accuracy'].items() if 'validation' in own}
    lrs = list(next(iter(tuned.values()))['validation'])
    rows = []
    for name in tuned:
        means = [np.mean([result['accuracy'][name]['validation'][lr] for result in results]) for lr in lrs]
        chosen = ', '.join(f'{result["accuracy"][name]["lr"]:g}' for result in results)
        rows.append([name, *(f'{100 * mean:.1f}' for mean in means), chosen])
    return markdown_table(['method', *lrs, 'chosen'], rows, numbers=True)


def _interval(found: Mapping[str, Any], form: str) -> str:
    value, low, high = (None if found[key] is None else f'{found[key]:{form}}' for key in ('value', 'low', 'high'))
    return f'{value}' if low is None else f'{value} ({low} to {high})'
