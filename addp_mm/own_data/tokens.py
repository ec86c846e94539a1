# Copyright (c) addp_mm contributors. Apache-2.0.
"""Token ids of all images, the training data of the predictor, written by tokenize_images.py."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from addp_mm.checkpoints.atomic_write import write_text
from addp_mm.own_data.stages import Request
from addp_mm.own_data.work_dir import TOKENS
from addp_mm.stages.commands import Commands, Progress, tool
from addp_mm.stages.progress import Clock
from addp_mm.stages.stage import Stage

STAMP = 'made_from.txt'
_MAX_BATCH = 64


def command(request: Request, tokenizer: Stage, max_broken_share: float) -> list[str]:
    """The command that writes the ids. A batch that fits in training fits here too."""
    return tool(
        'dataset_converters/tokenize_images.py',
        tokenizer.config,
        tokenizer.config,
        request.work_dir / TOKENS,
        '--checkpoint',
        tokenizer.weights,
        '--img-size',
        request.image_size,
        '--augment',
        request.augmentation,
        '--views',
        request.views,
        '--crop-scale',
        *request.crop_scale,
        '--num-workers',
        request.num_workers,
        '--batch-size',
        min(_MAX_BATCH, tokenizer.fitted.get('batch', 1)),
        '--max-broken-share',
        max_broken_share,
    )


def progress_of(folder: Path, clock: Clock) -> Progress:
    """A function that returns a line on the ids on disk, or None if there are none."""
    first: tuple[int, float] | None = None

    def line() -> str | None:
        nonlocal first
        try:
            about = json.loads((folder / 'tokens.json').read_text())
            done, rows = about['done'], about['ids']['shape'][0]
        except (OSError, ValueError, KeyError):
            return None
        first = first or (done, time.monotonic())
        if done > first[0]:
            clock.expect(TOKENS, (time.monotonic() - first[1]) / (done - first[0]) * (rows - done))
        return f'{TOKENS}: {done:,} of {rows:,} images ({done / rows:.0%}); {clock.ends(TOKENS)}'

    return line


def are_written(request: Request, tokenizer: Stage) -> bool:
    """Whether all ids of this tokenizer and these views are written."""
    stamp = request.work_dir / TOKENS / STAMP
    return stamp.is_file() and stamp.read_text() == _about(request, tokenizer)


def tokenize(request: Request, tokenizer: Stage, max_broken_share: float, commands: Commands, clock: Clock) -> None:
    """Write the ids, unless they exist. Ids of another tokenizer or other views are removed."""
    folder = request.work_dir / TOKENS
    if not are_written(request, tokenizer):
        if (folder / STAMP).is_file():
            shutil.rmtree(folder)
        log = request.work_dir / 'tokenize.log'
        commands(command(request, tokenizer, max_broken_share), log, progress_of(folder, clock))
        write_text(folder / STAMP, _about(request, tokenizer))
    clock.expect(TOKENS, 0.0)


def _about(request: Request, tokenizer: Stage) -> str:
    return f'{tokenizer.fingerprint} {request.views} {request.augmentation} {request.crop_scale}'
