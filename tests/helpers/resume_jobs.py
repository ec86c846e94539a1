# Copyright (c) addp_mm contributors. Apache-2.0.
"""A training on two processes, and its resume, with samplers of mmengine and of this package."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import mmdet.datasets.samplers  # noqa: F401  # once, before the forks
import torch
from mmengine import dist

from addp_mm.engine.hooks import PendingValidationHook, StopHook
from addp_mm.stop_signals import TrainingStopped, signals
from helpers.any_training import train
from helpers.jobs import in_two
from helpers.kill_at import KillAt

ASPECT = dict(batch_sampler=dict(type='mmdet.AspectRatioBatchSampler'))
ACCUMULATED = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2), accumulative_counts=3)
# whether by epoch, the loader, and the optimizer
KINDS = dict(
    infinite=(False, dict(sampler=dict(type='InfiniteSampler')), None),
    ours=(False, dict(sampler=dict(type='addp_mm.ResumableInfiniteSampler')), None),
    aspect=(True, dict(sampler=dict(type='DefaultSampler'), **ASPECT), None),
    accumulated=(False, dict(sampler=dict(type='InfiniteSampler')), ACCUMULATED),
)


def whole_and_resumed(folder: Path, world_size: int, kind: str) -> dict:
    rank = int(os.environ['RANK'])
    by_epoch, loader, wrapper = KINDS[kind]
    # each rank has a seed of its own
    settings = dict(launcher='pytorch', randomness=dict(seed=4, diff_rank_seed=True))
    settings.update(dict(optim_wrapper=wrapper) if wrapper else {})
    runs = {}
    for name, resume in (('whole', None), ('resumed', folder / 'whole_0/iter_4.pth')):
        runs[name] = train(folder / f'{name}_{rank}', loader, by_epoch, 3 if by_epoch else 8, resume=resume, **settings)
        dist.barrier()  # the checkpoint is complete
    return runs


def stopped_and_resumed(folder: Path, world_size: int) -> dict:
    """Rank 1 alone gets SIGTERM in the fifth iteration; both stop, and both resume."""
    rank = int(os.environ['RANK'])
    by_epoch, loader, _ = KINDS['ours']
    folders = {name: folder / f'{name}_{rank}' for name in ('whole', 'stopped')}
    settings = dict(launcher='pytorch', more_hooks=(PendingValidationHook, StopHook))
    torch.manual_seed(0)
    runs = dict(whole=train(folders['whole'], loader, by_epoch, 8, **settings))
    kill_at = partial(KillAt, 4 if rank else -1, 'SIGTERM')  # rank 0 gets none
    torch.manual_seed(0)  # the model has the first weights of the other one
    try:
        train(folders['stopped'], loader, by_epoch, 8, **dict(settings, more_hooks=(kill_at, StopHook)))
    except TrainingStopped as stop:
        runs['status'] = stop.code
    signals.is_handling, signals.received = False, None
    last = Path((folder / 'stopped_0/last_checkpoint').read_text())
    runs['saved'] = last.name
    runs['resumed'] = train(folders['stopped'], loader, by_epoch, 8, resume=last, **settings)
    return runs


def run(folder: Path) -> None:
    for kind in KINDS:
        in_two(folder, kind, whole_and_resumed, kind=kind)
    in_two(folder, 'stopped', stopped_and_resumed)
