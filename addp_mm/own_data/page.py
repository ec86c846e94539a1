# Copyright (c) addp_mm contributors. Apache-2.0.
"""The report of tools/pretrain_from_folder.py."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from addp_mm.datasets.listed.broken_images import BrokenImages
from addp_mm.datasets.tokens.token_store import ABOUT, read_about
from addp_mm.own_data.measure import command_of, measured
from addp_mm.own_data.stages import Request
from addp_mm.own_data.work_dir import TOKENS
from addp_mm.report.figures import Points, image_picture, line_charts
from addp_mm.report.logs import LogError, read_curve, read_previews
from addp_mm.report.machine import machine_class, versions
from addp_mm.report.page import Figure, Page, Section, Table
from addp_mm.report.palette import COLOURS
from addp_mm.stages.commands import shown, tool
from addp_mm.stages.progress import duration, latest, training_seconds
from addp_mm.stages.stage import Stage

LEAD = (
    'Three models were trained one after the other on the images of one folder. The tokenizer encodes an image as a '
    'grid of codes. The predictor predicts codes that are masked. The vision transformer (ADDP) learns from both: it '
    'denoises tokens and pixels alternately.'
)
_POINTS, _NUM_BROKEN = 300, 10
_TITLES = dict(tokenizer='Tokenizer', predictor='Token predictor', addp='ADDP')
# by stage: name in the log, title of the chart
_CURVES = dict(
    tokenizer=dict(psnr='PSNR of training batches (dB)', loss='Loss', perplexity='Perplexity of the codes'),
    predictor=dict(loss='Loss', accuracy='Accuracy on masked tokens'),
    addp=dict(loss='Loss'),
)
# by stage: name of the preview, its description
_PREVIEWS = dict(
    tokenizer=dict(
        reconstructions='Upper rows: images. Lower rows: their reconstructions by the tokenizer. Details that are '
        'missing here are also missing in the later stages.'
    ),
    predictor={},
    addp=dict(
        generated='Generated images. All previews start from the same noise.',
        alternating_steps='The steps that generated the first image, from left to right: codes above, pixels below.',
    ),
)
_MEASURED = dict(
    tokenizer="How much the reconstructions lose. A Fréchet distance in features of a network other than FID's "
    'Inception is not comparable with published FIDs.',
    predictor='Share of the masked tokens whose most likely code is the true one. All masked tokens are predicted at '
    'once.',
)


def write_page(
    path: Path, request: Request, stages: Mapping[str, Stage], generation: Sequence[str], ran: Sequence[str]
) -> int:
    """Write the report of a finished run.

    Args:
        path: The HTML file to write.
        request: The user's settings.
        stages: The stages in order, by name.
        generation: The command that generated images.
        ran: The commands of this run, as you type them.

    Returns:
        Size in bytes.
    """
    found = request.found
    command = 'python tools/pretrain_from_folder.py …'
    if sys.argv[0].endswith('pretrain_from_folder.py'):
        command = shlex.join(['python', *sys.argv])
    overview = Figure(
        'Training time is the sum over all logged iterations. Loss and accuracy are of training batches.',
        [command],
        table=Table(['', 'Iterations', 'Batch', 'Training', 'Last values'], [_row(s) for s in stages.values()]),
    )
    sections = [
        Section(
            'Results',
            [overview],
            f'{found.count:,} images with {found.channels} channel{"s" * (found.channels > 1)}, '
            f'{found.val_count:,} of them held out, at {request.image_size} px.',
        )
    ]
    for name, stage in stages.items():
        figures = _stage_figures(stage, found.val_count)
        if name == 'addp':
            grid = Image.open(stage.folder / 'samples/grid.png')
            figures.append(
                Figure(
                    'Images generated from the exported weights.',
                    [shown(generation)],
                    [image_picture(grid, 'grid of generated images')],
                )
            )
        sections.append(Section(_TITLES[name], figures))
    broken = _broken(request.work_dir, found.dataset.get('root', ''))
    if broken:
        figure = Figure(
            f'{len(broken):,} images were skipped; at most {_NUM_BROKEN} are shown. All are listed in '
            f'broken_images_….txt below {request.work_dir} and in tokens/tokens.json.',
            [command],
            table=Table(['Image', 'Reason'], list(broken.items())[:_NUM_BROKEN]),
        )
        sections.append(Section('Broken images', [figure]))
    software = Figure(
        'Software and machine. The commands are those of the latest start, without earlier finished stages.',
        ran or [command],
        table=Table(['', ''], list(dict(versions(), machine=machine_class()).items())),
    )
    sections.append(Section('How this page was created', [software]))
    return Page('Pre-training on your own images', LEAD, sections).write(path)


def _stage_figures(stage: Stage, val_count: int) -> list[Figure]:
    """The existing previews, measurements and curves of a stage."""
    train = [shown(tool('train.py', stage.config, '--work-dir', stage.run_dir, '--resume', 'auto'))]
    figures = []
    for name, caption in _PREVIEWS[stage.name].items():
        try:
            step, image = read_previews(stage.run_dir, name)[-1]
        except LogError:
            continue
        picture = image_picture(image, name.replace('_', ' '))
        figures.append(Figure(f'{caption} After {step:,} iterations.', train, [picture]))
    rows = measured(stage)
    if rows:
        figures.append(
            Figure(
                f'{_MEASURED[stage.name]} Measured on all {val_count:,} held-out images.',
                [shown(command_of(stage))],
                table=Table(['', 'Exported weights'], rows),
            )
        )
    charts: dict[str, dict[str, Points]] = {}
    for name, title in _CURVES[stage.name].items():
        try:
            points = [(x, y) for x, y in read_curve(stage.run_dir, name) if math.isfinite(y)]
        except LogError:
            continue
        if points:
            charts[title] = {'': points[:: max(1, len(points) // _POINTS)]}
    if charts:
        figures.append(
            Figure('From the log of the training.', train, [line_charts(charts, 'iteration', {'': COLOURS[0]})])
        )
    return figures


def _broken(work_dir: Path, root: str) -> dict[str, str]:
    """Names and reasons of the images that a stage could not read."""
    # tokens.json has names relative to the root
    tokens = work_dir / TOKENS
    broken = read_about(tokens)['broken'] if (tokens / ABOUT).is_file() else []
    found = {os.path.join(root, image['name']): image['reason'] for image in broken}
    for path in sorted(work_dir.glob('*/*/broken_images_*.txt')):
        found.update(BrokenImages(path, count=0, share=0.0).read())
    return {name: reason.removeprefix(f'{name}: ') for name, reason in sorted(found.items())}


def _row(stage: Stage) -> list[str]:
    fitted = stage.fitted
    batch = f'{fitted["batch"]}' + (f' x {fitted["accumulated"]}' if fitted['accumulated'] > 1 else '')
    record = latest(stage.run_dir) or {}
    values = ', '.join(f'{name} {record[name]:.4g}' for name in ('loss', 'accuracy') if name in record)
    seconds = training_seconds(stage.run_dir)
    return [_TITLES[stage.name], f'{fitted["max_iters"]:,}', batch, duration(seconds), values]
