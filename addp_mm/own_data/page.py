# Copyright (c) addp_mm contributors. Apache-2.0.
"""The page that a run of tools/pretrain_from_folder.py ends with."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from addp_mm.datasets.listed.broken_images import BrokenImages
from addp_mm.datasets.tokens.token_store import broken_images
from addp_mm.own_data import progress
from addp_mm.own_data.commands import shown, tool
from addp_mm.own_data.measure import command_of, measured
from addp_mm.own_data.work_dir import TOKENS
from addp_mm.report.charts import line_chart
from addp_mm.report.logs import LogError, read_curve, read_pictures, records, scalar_files
from addp_mm.report.machine import machine_class, versions
from addp_mm.report.page import Page, table
from addp_mm.report.pictures import img

LEAD = (
    'Three models, trained one after the other on the images of one folder: a tokenizer that writes a picture as a '
    'grid of codes, a predictor that guesses codes that are hidden, and a vision transformer that learns from both '
    'by denoising tokens and pixels in turn (ADDP).'
)
_POINTS, _NUM_BROKEN = 300, 10
# name in the log, heading of the chart
_CURVES = {
    'tokenizer': {'psnr': 'PSNR of training batches (dB)', 'loss': 'Loss', 'perplexity': 'Perplexity of the codes'},
    'predictor': {'loss': 'Loss', 'accuracy': 'Accuracy on masked tokens'},
    'addp': {'loss': 'Loss'},
}
_LOOK = {
    'reconstructions': 'Above the images, below what the tokenizer leaves of them. Later stages see no more.',
    'generated': 'Generated from noise, the same at each preview.',
    'alternating_steps': 'How the first of them came about: codes above, pixels below.',
}
_MEASURED = dict(
    tokenizer="What reconstructions lose. A distance in other features than Inception's is no FID.",
    predictor='Share of the masked tokens whose likeliest code is the true one, all of them asked at once.',
)
_TITLES = dict(tokenizer='Tokenizer', predictor='Token predictor', addp='ADDP')


def write_page(path: Path, run) -> int:
    """Write the page of a finished :class:`~addp_mm.own_data.pipeline.Pipeline`; returns its size in bytes."""
    found = run.request.found
    page = Page("Pre-training on one's own images", LEAD)
    page.section(
        'In numbers',
        f'{found.count:,} images with {found.channels} '
        f'channel{"s" * (found.channels > 1)}, {found.count - found.train_count:,} of them held '
        f'out, at {run.request.image_size} px.',
    )
    command = (
        shlex.join(['python', *sys.argv])
        if sys.argv[0].endswith('pretrain_from_folder.py')
        else (f'python tools/pretrain_from_folder.py {run.args.images} …')
    )
    page.figure(
        table(
            ['', 'Iterations', 'Batch', 'Training', 'Last values'],
            [_row(stage) for stage in run.stages.values()],
            'results',
        ),
        'Training time is the sum of all logged iterations. PSNR, SSIM and usage (share of the codes in use, '
        'in percent) are of images that were held out; loss and accuracy are of training batches.',
        [command],
    )
    for name, stage in run.stages.items():
        page.section(_TITLES[name])
        train = [shown(tool('train.py', stage.config, '--work-dir', stage.run_dir, '--resume', 'auto'))]
        for content, caption in _pictures(stage):
            page.figure(content, caption, train)
        rows = [[escape(what), value] for what, value in measured(stage)]
        if rows:
            page.figure(
                table(['', 'exported weights'], rows),
                f'{_MEASURED[name]} Of all {found.count - found.train_count:,} images that were held out.',
                [shown(command_of(stage))],
            )
        charts = _charts(stage)
        if charts:
            page.figure(f'<div class="charts">{"".join(charts)}</div>', "From the training's log.", train)
    grid = run.stages['addp'].folder / 'samples' / 'grid.png'
    if grid.is_file():
        page.figure(
            img(Image.open(grid), 'samples', 'sheet'),
            'Samples drawn from the exported weights.',
            [shown(run.generation())],
        )
    broken = _broken(run.work_dir, found.dataset.get('root', ''))
    if broken:
        page.figure(
            table(
                ['images left out', 'reason'],
                [[escape(name), escape(reason)] for name, reason in list(broken.items())[:_NUM_BROKEN]],
            ),
            f'Broken images: {len(broken):,}, of which the first {_NUM_BROKEN} at most are above. All are '
            f'listed in broken_images_….txt below {run.work_dir}, and in tokens/broken.jsonl.',
            [command],
        )
    page.section('How it was made')
    rows = [[escape(key), escape(str(value))] for key, value in dict(versions(), machine=machine_class()).items()]
    page.figure(
        table(['', ''], rows),
        'Software and machine. Commands are those of the latest start; stages that were '
        'done before are not among them.',
        run.commands.ran or [command],
    )
    return page.write(path)


def _broken(work_dir: Path, root: str) -> dict[str, str]:
    """Reasons by name of the images that a stage could not read; stored ids name them by their place below the root."""
    found = {os.path.join(root, image['name']): image['reason'] for image in broken_images(work_dir / TOKENS)}
    for path in sorted(work_dir.glob('*/*/broken_images_*.txt')):
        found.update(BrokenImages(path, count=0, share=0.0).read())
    return {name: reason.removeprefix(f'{name}: ') for name, reason in sorted(found.items())}


def _row(stage) -> list[str]:
    fitted = stage.record()['fitted']
    batch = str(fitted.get('batch', '–')) + (f' x {fitted["accumulated"]}' if fitted.get('accumulated', 1) > 1 else '')
    values = ', '.join(f'{escape(name)} {value:.4g}' for name, value in last_values(stage).items())
    return [
        _TITLES[stage.name],
        f'{fitted["max_iters"]:,}',
        batch,
        progress.duration(progress.training_seconds(stage.run_dir)),
        values,
    ]


def last_values(stage) -> dict[str, float]:
    """What the log says last of a stage: of validation where there is one."""
    found = {}
    for file in scalar_files(stage.run_dir):
        for record in records(file):
            names = ('PSNR', 'SSIM', 'usage', 'perplexity') if 'iter' not in record else ('loss', 'accuracy')
            found.update(
                {_short(key): value for key, value in record.items() if _short(key) in names and math.isfinite(value)}
            )
    return {key: value for key, value in found.items() if stage.name != 'tokenizer' or key != 'loss'}


def _short(name: str) -> str:
    """``reconstruction/psnr`` as ``PSNR``."""
    last = name.rpartition('/')[2]
    return last.upper() if last.lower() in ('psnr', 'ssim') else last


def _pictures(stage) -> list[tuple[str, str]]:
    shown_here: list[tuple[str, str]] = []
    names: Sequence[str] = dict(tokenizer=('reconstructions',), addp=('generated', 'alternating_steps')).get(
        stage.name, ()
    )
    for name in names:
        try:
            step, picture = read_pictures(stage.run_dir, name)[-1]
        except LogError:
            continue
        wide = f'<div class="wide">{img(picture, name, "sheet" if name == "generated" else "")}</div>'
        shown_here.append((wide, f'{name.replace("_", " ").capitalize()} after {step:,} iterations. {_LOOK[name]}'))
    return shown_here


def _charts(stage) -> list[str]:
    charts = []
    curves: Mapping[str, str] = _CURVES[stage.name]
    for name, title in curves.items():
        try:
            points = [(x, y) for x, y in read_curve(stage.run_dir, name) if math.isfinite(y)]
        except LogError:
            continue
        if points:
            thinned = points[:: max(1, len(points) // _POINTS)]
            charts.append(line_chart(dict(addp=thinned), title, 'iterations'))
    return charts
