# Copyright (c) addp_mm contributors. Apache-2.0.
"""The report of .dev/demo.py, from the files of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from addp_mm.benchmark.step import Step
from addp_mm.benchmark.step_runner import Done, clock
from addp_mm.report.machine import machine_class, versions
from addp_mm.report.page import Figure, Page, Section, Table
from demo_report.parts import Part, commands

LEAD = (
    'ADDP pre-trains a vision transformer by generating images: it alternates between discrete tokens and pixels. This '
    'page shows first what the small weights of this package can do, and then short trainings on this computer.'
)
SHORT = (
    'Short run: each step had only a few iterations and images, to check that everything works. The numbers and '
    'figures on this page have no meaning.'
)
UNFINISHED = (
    'The trainings are not finished. The command writes this page again at its end; the same command continues an '
    'interrupted demo.'
)
NEXT = (
    ('try the weights in your browser', 'docs/app.md', 'addp app'),
    (
        'put ADDP or another backbone into your own config',
        'docs/swap.md',
        'addp swap mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py --backbone addp_b --out my_detector.py',
    ),
    ('pre-train on your own images', 'docs/own_data.md', 'addp pretrain FOLDER'),
    ('train at full size on ImageNet, COCO, ADE20K or Cityscapes', 'docs/model_zoo.md', 'addp list'),
    ('go through the steps of this page yourself', 'docs/first_steps.md', 'addp doctor'),
)


def build_page(parts: Sequence[Part], scenes: Step, done: Mapping[str, Done], short: bool) -> Page:
    """Build the report of the parts whose steps are done.

    Args:
        parts: The parts of the demo, in order.
        scenes: The step that writes the scenes.
        done: Results of the steps so far, by name.
        short: Whether it is a run of a few iterations.

    Raises:
        LogError: A file that a step writes is missing; the message names it.
    """
    finished = [part for part in parts if all(step.name in done for step in part.steps)]
    steps = [scenes, *(step for part in finished for step in part.steps)]
    sections = [*(part.section() for part in finished), _next(), _making(steps, done)]
    warnings = [SHORT] * short + [UNFINISHED] * (len(finished) < len(parts))
    return Page('ADDP: what it does, and how it trains', LEAD, sections, ' '.join(warnings))


def _next() -> Section:
    table = Table(['You want to', 'Page', 'Command'], NEXT, commands=True)
    caption = (
        'First activate the environment that make created: source .venv/bin/activate. The pages are files of the '
        'repository; make docs builds them as a site.'
    )
    return Section('Where to go next', [Figure(caption, [command for *_, command in NEXT], table=table)])


def _making(steps: Sequence[Step], done: Mapping[str, Done]) -> Section:
    total = sum(done[step.name].seconds for step in steps)
    rows = [[step.title, clock(done[step.name].seconds), f'{done[step.name].peak_mib:,.0f} MiB'] for step in steps]
    figures = [
        Figure(
            'Time and peak memory of each step. The memory of processes that load data is not included.',
            commands(steps),
            table=Table(['Step', 'Minutes', 'Peak memory'], rows),
        ),
        Figure('Versions.', ['python -m pip list'], table=Table(['Package', 'Version'], list(versions().items()))),
    ]
    text = (
        f'Machine: {machine_class()}. The steps took {clock(total)} minutes in total; several ran at once with '
        'enough cores. Each step is a command that you can run by hand.'
    )
    return Section('How this page was created', figures, text)
