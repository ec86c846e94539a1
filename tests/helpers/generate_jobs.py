# Copyright (c) addp_mm contributors. Apache-2.0.
"""addp generate in one and in two processes; one of two is killed while it writes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import runpy
import signal
import stat
from pathlib import Path

import torch
from mmpretrain.models import selfsup  # noqa: F401  # once, before the forks

from addp_mm.checkpoints import atomic_write
from helpers.jobs import in_one, in_two
from helpers.tiny_addp import build_model, write_config

TOOL = Path(__file__).parents[2] / 'tools' / 'generate.py'
NUM_IMAGES = 14


def kill_after_images(folder: Path, number: int) -> None:
    """Kill this process within the write of a file, when so many images are complete."""
    sync = os.fsync

    def sync_or_die(descriptor: int) -> None:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        if is_file and len(list(folder.glob('images/*.png'))) >= number:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    atomic_write.os.fsync = sync_or_die


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of all files, by their name."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob('*'))
        if path.is_file()
    }


def generate(folder: Path, world_size: int, batch_size: int, killed: bool = False) -> dict[str, str]:
    if killed and os.environ['RANK'] == '1':
        kill_after_images(folder, 2)
    model, options = folder.parent / 'model', ['--steps', '3', '--npz', '--device', 'cpu']
    if world_size > 1:
        options += ['--launcher', 'pytorch']
    runpy.run_path(str(TOOL))['main'](
        [
            str(model / 'addp_tiny.py'),
            str(model / 'addp.pth'),
            *('--out', str(folder), '--num-images', str(NUM_IMAGES), '--batch-size', str(batch_size)),
            *options,
        ]
    )
    return digests(folder)


def run(folder: Path) -> None:
    model = folder / 'model'
    model.mkdir()
    write_config(model)
    torch.save(build_model().state_dict(), model / 'addp.pth')
    in_one(folder, 'alone', generate, batch_size=1)
    in_two(folder, 'both', generate, batch_size=3)
    with contextlib.suppress(torch.multiprocessing.ProcessExitedException):
        in_two(folder, 'resumed', generate, batch_size=3, killed=True)
    torch.save(digests(folder / 'resumed'), folder / 'killed.pth')
    in_two(folder, 'resumed', generate, batch_size=3)
