# Copyright (c) addp_mm contributors. Apache-2.0.
"""The part of the demo that fine-tunes, from ADDP weights and from random weights."""

from __future__ import annotations

from collections.abc import Sequence

from addp_mm.benchmark.step import Step
from addp_mm.report.figures import line_charts
from addp_mm.report.logs import read_json
from addp_mm.report.page import Figure, Section, Table
from demo_report.finetunings import MODEL, WEIGHTS, FineTuning
from demo_report.parts import ROOT, Part, Setting, commands

COLOURS = {'ADDP weights': '#14708c', 'random weights': '#b8692a'}
SHORT_ITERS = 4


def comparison(setting: Setting) -> Part:
    """Two short fine-tunings and their tests."""
    runs = [
        FineTuning(
            weights, setting.folder / f'det_{weights}', setting.data_root, SHORT_ITERS if setting.short else None
        )
        for weights in WEIGHTS
    ]
    trainings, tests = zip(*(run.steps(after=(setting.scenes,)) for run in runs), strict=True)
    steps = [*trainings, *tests]
    text = (
        f'The demo fine-tunes {MODEL} twice: with the transformer from ADDP weights, and from random weights. The '
        'curves and the table show what the pre-training changes after a training as short as this. Real schedules are '
        'many times longer.'
    )
    return Part(steps, lambda: Section('Fine-tuning', [_losses(runs, trainings), _results(runs, steps)], text))


def _losses(runs: Sequence[FineTuning], trainings: Sequence[Step]) -> Figure:
    charts = {f'{MODEL}: training loss': {WEIGHTS[run.weights]: run.curve() for run in runs}}
    caption = 'The sum of all losses of the model, mean of each logging interval.'
    return Figure(caption, commands(trainings), [line_charts(charts, 'iteration', COLOURS)])


def _results(runs: Sequence[FineTuning], steps: Sequence[Step]) -> Figure:
    ours, theirs = (run.results() for run in runs)
    rows = [
        [metric, f'{value:.1f}', f'{theirs[metric]:.1f}', f'{value - theirs[metric]:+.1f}']
        for metric, value in ours.items()
    ]
    scenes = read_json(ROOT / runs[0].data_root / 'fashion_scenes.json')['val']
    caption = (
        f'Percent, on {scenes:,} validation scenes. Seed {runs[0].seed}, one run each: small differences may be '
        f'chance. Both have the same schedule: {runs[0].schedule()}.'
    )
    return Figure(
        caption, commands(steps), table=Table(['Metric', 'ADDP weights', 'Random weights', 'Difference'], rows)
    )
