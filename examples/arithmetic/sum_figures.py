# Copyright (c) addp_mm contributors. Apache-2.0.
"""Figures: the tokens of wrong answers over their rollouts, and bars of accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agreement import ExaminedAnswer
from matplotlib.figure import Figure as MatplotlibFigure

from addp_mm.report.benchmark_figures import Interval, error_bars
from addp_mm.report.data_figures import plain_axes, svg_picture
from addp_mm.report.figures import Picture
from addp_mm.report.palette import COLOURS, SOFT

_LINE, _SUSPECT = COLOURS[0], COLOURS[4]
_INCHES = (8.8, 1.35)


def answers_figure(answers: Sequence[ExaminedAnswer]) -> Picture:
    """Draw wrong answers, each over the share of right continuations.

    A token is red by its number 1 − s. The bar above it is the share of right continuations after
    it; the first bar is that of the question. The token with the largest drop has a frame.

    Args:
        answers: The answers, one row each.
    """
    figure = MatplotlibFigure((_INCHES[0], _INCHES[1] * len(answers) + 0.3), layout='constrained')
    axes = figure.subplots(len(answers), 1, squeeze=False)[:, 0]
    width = max(len(answer.tokens) for answer in answers)
    for ax, answer in zip(axes, answers, strict=True):
        _draw_answer(ax, answer, width)
    axes[-1].set_xlabel(
        'tokens of the answer: red by 1 − s; the one with the largest drop has a frame', fontsize=8, color=SOFT
    )
    return svg_picture(figure, 'wrong answers, their tokens red by 1 − s, over the share of right continuations')


def _draw_answer(ax: Any, answer: ExaminedAnswer, width: int) -> None:
    places = range(len(answer.tokens) + 1)
    ax.bar(places, [100 * share for share in answer.shares], 0.7, color=_LINE)
    for number, (token, strength) in enumerate(zip(answer.tokens, answer.suspicion['contrast'], strict=True), 1):
        box = dict(
            boxstyle='square,pad=0.22',
            facecolor=(*_rgb(_SUSPECT), max(strength, 0.0)),  # a rounded score may exceed 1
            edgecolor='#222222' if number == answer.critical + 1 else 'none',
        )
        ax.text(number, -22, _shown(token), ha='center', va='center', fontsize=9, family='monospace', bbox=box)
    ax.set_title(answer.question, fontsize=9, loc='left', fontweight='bold', family='monospace')
    ax.set_xlim(-0.6, width + 0.6)
    ax.set_ylim(-38, 105)
    ax.set_xticks([])
    ax.set_yticks([0, 50, 100])
    ax.set_ylabel('% right', fontsize=8, color=SOFT)
    plain_axes(ax, 'y')


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))


def _shown(token: str) -> str:
    """Matplotlib reads a single dollar sign as such; two of them as a formula."""
    return token.replace('$', r'\$')


def accuracy_figure(found: Mapping[str, Any]) -> Picture:
    """Draw the accuracies of all methods: mean over the seeds, and the standard deviation.

    Args:
        found: From :func:`~summary.summary`.
    """
    bars = {
        name: [_bar(own[kind]['mean'], own[kind]['std']) for kind in ('greedy', 'sampled')]
        for name, own in found['accuracy'].items()
    }
    return error_bars('Answers to new questions', bars, ('greedy', 'sampled'), '% right')


def _bar(mean: float, std: float) -> Interval:
    return Interval(100 * mean, 100 * (mean - std), 100 * (mean + std))
