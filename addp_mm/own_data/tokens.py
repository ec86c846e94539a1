# Copyright (c) addp_mm contributors. Apache-2.0.
"""The ids of all images, written between tokenizer and predictor by tools/dataset_converters/tokenize_images.py."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from addp_mm.own_data import progress
from addp_mm.own_data.commands import Commands, tool
from addp_mm.own_data.stages import Request
from addp_mm.own_data.state import Stage, write_atomically
from addp_mm.own_data.work_dir import TOKENS

STAMP = 'made_from.txt'
_AT_ONCE = 64
# a step trains encoder and decoder, forward and, twice as long, backward; here only the encoder
# goes, forward
_SHARE_OF_STEP = 1 / 6


def expected_seconds(request: Request, tokenizer: Stage) -> float:
    """How long it takes, as far as the tokenizer's trial steps tell; 0 where there were none, or nothing is left."""
    if are_there(request, tokenizer):
        return 0.0
    fitted = tokenizer.record()['fitted']
    steps = request.found.train_count * request.views / fitted.get('batch', 1)
    return fitted.get('seconds', 0.0) * steps * _SHARE_OF_STEP


def command(request: Request, tokenizer: Stage, max_broken_share: float) -> list[str]:
    """The command that writes them. What fits when a step of the training is taken fits without one."""
    fits = tokenizer.record()['fitted'].get('batch', 1)
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
        min(_AT_ONCE, fits),
        '--max-broken-share',
        max_broken_share,
    )


class Written:
    """How far the ids are, by what is safe on disk.

    Args:
        folder: Of the ids.
        clock: To tell the expected ends with.
    """

    def __init__(self, folder: Path, clock: progress.Clock) -> None:
        self.folder, self.clock = folder, clock
        self.first: tuple[int, float] | None = None

    def line(self) -> str | None:
        """In words; None while nothing is written."""
        try:
            about = json.loads((self.folder / 'tokens.json').read_text())
            done, rows = about['done'], about['ids']['shape'][0]
        except (OSError, ValueError, KeyError):
            return None
        self.first = self.first or (done, time.monotonic())
        before, since = self.first
        if done > before:
            self.clock.expect(TOKENS, (time.monotonic() - since) / (done - before) * (rows - done))
        return f'{TOKENS}: {done:,} of {rows:,} images ({done / rows:.0%}); {self.clock.ends(TOKENS)}'


def are_there(request: Request, tokenizer: Stage) -> bool:
    """Whether the ids are written, of this tokenizer and these views."""
    stamp = request.work_dir / TOKENS / STAMP
    return stamp.is_file() and stamp.read_text() == _about(request, tokenizer)


def tokenize(
    request: Request, tokenizer: Stage, max_broken_share: float, commands: Commands, clock: progress.Clock
) -> None:
    """Write the ids, unless they are there; those of others are removed."""
    folder = request.work_dir / TOKENS
    if not are_there(request, tokenizer):
        if (folder / STAMP).is_file():
            shutil.rmtree(folder)
        commands(
            command(request, tokenizer, max_broken_share),
            request.work_dir / 'tokenize.log',
            Written(folder, clock).line,
        )
        write_atomically(folder / STAMP, _about(request, tokenizer))
    clock.expect(TOKENS, 0.0)


def _about(request: Request, tokenizer: Stage) -> str:
    return f'{tokenizer.fingerprint} {request.views} {request.augmentation} {request.crop_scale}'
