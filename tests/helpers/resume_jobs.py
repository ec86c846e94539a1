# Copyright (c) addp_mm contributors. Apache-2.0.
"""A training on two processes, and its resume, with samplers of mmengine and of this package."""

from __future__ import annotations

import os
from pathlib import Path

import mmdet.datasets.samplers  # noqa: F401  # once, before the forks
from mmengine import dist

from helpers.any_training import train
from helpers.jobs import in_two

ASPECT = dict(batch_sampler=dict(type='mmdet.AspectRatioBatchSampler'))
# whether by epoch, and the loader
KINDS = dict(
    infinite=(False, dict(sampler=dict(type='InfiniteSampler'))),
    ours=(False, dict(sampler=dict(type='addp_mm.ResumableInfiniteSampler'))),
    aspect=(True, dict(sampler=dict(type='DefaultSampler'), **ASPECT)),
)


def whole_and_resumed(folder: Path, world_size: int, kind: str) -> dict:
    rank = int(os.environ['RANK'])
    by_epoch, loader = KINDS[kind]
    # each rank has a seed of its own
    settings = dict(launcher='pytorch', randomness=dict(seed=4, diff_rank_seed=True))
    runs = {}
    for name, resume in (('whole', None), ('resumed', folder / 'whole_0/iter_4.pth')):
        runs[name] = train(folder / f'{name}_{rank}', loader, by_epoch, 3 if by_epoch else 8, resume=resume, **settings)
        dist.barrier()  # the checkpoint is complete
    return runs


def run(folder: Path) -> None:
    for kind in KINDS:
        in_two(folder, kind, whole_and_resumed, kind=kind)
