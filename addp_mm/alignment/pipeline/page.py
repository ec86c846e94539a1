# Copyright (c) addp_mm contributors. Apache-2.0.
"""The report of ``addp align``."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from addp_mm.alignment.figures import CHOSEN, REJECTED, framed, heat_map, steps_heat_map
from addp_mm.alignment.pipeline.comparison_section import comparison_pictures, comparison_section
from addp_mm.alignment.pipeline.plan import BASE, NEGATIVE, POSITIVE, Plan
from addp_mm.alignment.pipeline.samples import Samples, tiles
from addp_mm.alignment.pipeline.seed_run import SeedRun
from addp_mm.alignment.score_files import read_scores
from addp_mm.alignment.token_scores import score_ranks
from addp_mm.checkpoints.atomic_write import atomic_path
from addp_mm.generation.figures import enlarge, image_grid
from addp_mm.report.figures import Picture, Points, image_picture, line_charts
from addp_mm.report.logs import LogError, read_curve
from addp_mm.report.machine import machine_class, versions
from addp_mm.report.page import Figure, Page, Section, Table
from addp_mm.report.palette import COLOURS
from addp_mm.stages.commands import shown, tool
from addp_mm.stages.progress import duration, training_seconds

LEAD = (
    'A generator made images. A reward said which of them are right and which are wrong. A positive and a negative '
    'model were trained on both; where they disagree about a token of a wrong image, the token is critical. Then each '
    'method trained the generator on pairs of a right and a wrong image of one question. All models are compared on '
    'images of fresh seeds.'
)
# by name in the log
_CURVES = dict(
    loss='Loss',
    reward_margin='Reward margin of the pairs',
    reward_accuracy='Share of pairs whose order is right',
    kl='KL of a token to the base, nats',
    weight_on_top_tenth='Share of the weight on the top tenth of the tokens',
)
_SHOWN_IMAGES, _SHOWN_TOKENS, _SIDE, _GREY = 10, 4, 128, 160
_ENDINGS = {'data:image/png': '.png', 'data:image/svg+xml': '.svg', 'data:image/jpeg': '.jpg'}
_SCORED = (
    'A rejected image, its tokens by the rank of their scores (red: the lowest score, the most critical token) and the '
    'steps in which they were kept; then the same of the chosen image of the pair. The scores of wrong '
    'images: '
)


def write_page(path: Path, plan: Plan, runs: Sequence[SeedRun], table: Mapping[str, Any], ran: Sequence[str]) -> int:
    """Write the report of a finished run, and its pictures into the folder ``figures`` beside it.

    Args:
        path: The HTML file to write.
        plan: What was done.
        runs: The run of each seed.
        table: From :func:`~addp_mm.alignment.pipeline.comparison_table.summary`.
        ran: The commands of this run, as you type them.

    Returns:
        Size in bytes.
    """
    command = shlex.join(['addp', 'align', *sys.argv[1:]])
    first = runs[0]
    sections = [
        comparison_section(table, len(first.compared(BASE).numbers), command, plan.holes),
        _same_noise(first, command),
        _pairs(first, command),
        *([_tokens(first, command)] if plan.has_weights else []),
        _trainings(first),
    ]
    software = Figure(
        'Software and machine. The commands are those of the latest start, without earlier finished stages.',
        ran or [command],
        table=Table(['', ''], list(dict(versions(), machine=machine_class()).items())),
    )
    sections.append(Section('How this page was created', [software]))
    charts = {f'comparison_{name}': picture for name, picture in comparison_pictures(table).items()}
    _write_pictures(path.with_name('figures'), charts | _numbered(sections[1:]))
    return Page('Alignment of a generator', LEAD, sections).write(path)


def _numbered(sections: Sequence[Section]) -> dict[str, Picture]:
    """The pictures of sections, named by their heading and number."""
    found = {}
    for section in sections:
        pictures = [picture for figure in section.figures for picture in figure.pictures]
        heading = section.heading.lower().replace(' ', '-')
        found.update({f'{heading}_{number}': picture for number, picture in enumerate(pictures)})
    return found


def _write_pictures(folder: Path, pictures: Mapping[str, Picture]) -> None:
    """Write each picture to a file; remove those of an earlier report that this one lacks."""
    folder.mkdir(exist_ok=True)
    files = {
        f'{re.sub("[^a-zA-Z0-9_-]", "_", name)}{_ENDINGS[picture.uri.partition(";")[0]]}': picture
        for name, picture in pictures.items()
    }
    for name, picture in files.items():
        with atomic_path(folder / name) as partial:
            partial.write_bytes(picture.content)
    headings = {name.partition('_')[0] for name in files}
    for old in folder.iterdir():
        if old.name not in files and old.name.partition('_')[0] in headings and old.suffix in _ENDINGS.values():
            old.unlink(missing_ok=True)


def _same_noise(run: SeedRun, command: str) -> Section:
    names = run.contenders()
    rows = []
    for name in names:
        samples = run.compared(name)
        rows += [samples.image(row) for row in range(min(_SHOWN_IMAGES, len(samples.numbers)))]
    grid = image_grid(tiles(rows), columns=len(rows) // len(names))
    caption = f'Images from the same noise. Rows: {", ".join(names)}.'
    return Section('Images', [Figure(caption, [command], [_picture(grid, caption)])])


def _pairs(run: SeedRun, command: str) -> Section:
    selection = run.selection()
    rows = [[name.replace('_', ' '), f'{count:,}'] for name, count in selection.counts.items()]
    rows += [['right samples', f'{len(selection.right):,}'], ['wrong samples', f'{len(selection.wrong):,}']]
    rows += [['pairs', f'{len(selection.pairs):,}']]
    sheet = image_picture(Image.open(run.folder / 'contact_sheet.png'), 'chosen and rejected images')
    return Section(
        'Right and wrong',
        [
            Figure('What was selected.', [command], table=Table(['', 'Number'], rows)),
            Figure('Pairs: chosen in a blue frame, rejected in a red one.', [command], [sheet]),
        ],
    )


def _tokens(run: SeedRun, command: str) -> Section:
    samples = run.samples()
    selection = run.selection()
    scores = read_scores(run.scores_file, samples.numbers, samples.settings)
    row_of = {number: row for row, number in enumerate(samples.numbers)}
    pairs = selection.pairs[:: max(1, len(selection.pairs) // _SHOWN_TOKENS)][:_SHOWN_TOKENS]
    grid_size = run.grid_size()
    pictures = []
    for pair in pairs:
        for number, colour, side in zip(reversed(pair), (REJECTED, CHOSEN), ('rejected', 'chosen'), strict=True):
            tiles = score_tiles(samples, row_of[number], scores[row_of[number]], colour, grid_size)
            pictures.append(_picture(tiles, f'{side} image {number}'))
    rows = [row_of[number] for number in selection.wrong]
    wrong = scores[rows][samples.trajectories.generated[rows]]
    low, middle, high = wrong.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    text = f'{_SCORED}a tenth is below {low:.3g}, half below {middle:.3g}, nine tenths below {high:.3g}.'
    return Section('Critical tokens', [Figure(text, [command], pictures)], ' '.join(map(_warning, run.faults())))


def score_tiles(samples: Samples, row: int, scores: Any, colour: np.ndarray, grid_size: tuple[int, int]) -> np.ndarray:
    """An image, its tokens by weight, and its steps, side by side, uint8 (height, width, 3)."""
    generated = samples.trajectories[[row]].generated
    weights = (1 - score_ranks(scores[None], generated)).masked_fill(~generated, 0)[0]
    image = enlarge(samples.image(row), _SIDE)
    # a tile of a larger image is not where the image shows it
    below = image if samples.trajectories[[row]].generated.all() else np.full_like(image, _GREY)
    parts = [framed(image, colour, 3), framed(heat_map(below, weights, grid_size, _SIDE), colour, 3)]
    parts.append(steps_heat_map(samples.trajectories[[row]], weights, grid_size, _SIDE // 2))
    height = max(part.shape[0] for part in parts)
    padded = [np.pad(part, ((0, height - part.shape[0]), (0, 6), (0, 0)), constant_values=255) for part in parts]
    return np.concatenate(padded, axis=1)


def _trainings(run: SeedRun) -> Section:
    figures, rows = [], []
    for name, stage in run.stages.items():
        command = shown(tool('train.py', stage.config, '--work-dir', stage.run_dir, '--resume', 'auto'))
        batch = run.new[name].train_dataloader.batch_size * run.processes
        iterations = f'{stage.fitted["max_iters"]:,} of batch {batch}'
        rows.append([name, iterations, duration(training_seconds(stage.run_dir)), command])
    figures.append(
        Figure(
            'Training time is the sum over all logged iterations.',
            [rows[0][-1]],
            table=Table(['', 'Iterations', 'Training', 'Command'], rows, commands=True),
        )
    )
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(run.stages)}
    charts: dict[str, dict[str, Points]] = {}
    for key, title in _CURVES.items():
        if lines := {name: points for name in run.stages if (points := _curve(run, name, key))}:
            charts[title] = lines
    commands = [row[-1] for row in rows]
    figures.append(Figure('From the logs.', commands, [line_charts(charts, 'iteration', colours)]))
    text = f'{POSITIVE} and {NEGATIVE} are trained on right and on wrong images; the others on pairs.'
    return Section('Trainings', figures, text[0].upper() + text[1:])


def _curve(run: SeedRun, name: str, key: str) -> Points:
    try:
        return [(x, y) for x, y in read_curve(run.stages[name].run_dir, key) if math.isfinite(y)]
    except LogError:
        return []


def _warning(fault: str) -> str:
    return f'Warning: {fault}.'


def _picture(array: np.ndarray, alt: str) -> Picture:
    return image_picture(Image.fromarray(array), alt)
