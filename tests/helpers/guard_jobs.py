# Copyright (c) addp_mm contributors. Apache-2.0.
"""Trainings on two processes, of which one gets a bad batch: DDP and FSDP."""

from __future__ import annotations

from pathlib import Path

import mmpretrain.models  # noqa: F401  # once, before the forks
from mmengine.hooks import Hook

from addp_mm.engine.hooks import TrainingCollapsedError
from helpers.guarded import build
from helpers.jobs import in_two

SKIP = dict(policy=dict(loss='skip', gradients='skip'))
ENV = dict(dist_cfg=dict(backend='gloo'))
SHARDED = dict(type='addp_mm.ShardedStrategy', units=['Sequential'])


class BadBatch(Hook):
    """Makes the batch of a rank NaN in an iteration, counted from 1."""

    def __init__(self, rank: int, iteration: int) -> None:
        self.rank, self.iteration = rank, iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.rank == self.rank and runner.iter + 1 == self.iteration:
            data_batch['inputs'].fill_(float('nan'))


def train(work_dir: Path, world_size: int, guard: dict, **options) -> dict:
    runner = build(work_dir, guard, hooks=[BadBatch(1, 3)], launcher='pytorch', env_cfg=ENV, max_iters=4, **options)
    text = ''
    try:
        runner.train()
    except TrainingCollapsedError as error:
        text = str(error)
    weights = {name: weight.detach().clone() for name, weight in runner.model.named_parameters()}
    steps = [int(state['step']) for state in runner.optim_wrapper.state_dict()['state'].values()]
    return dict(text=text, weights=weights, steps=steps, iterations=runner.iter)


def run(folder: Path) -> None:
    in_two(folder, 'stop', train, guard={})
    in_two(folder, 'skip', train, guard=SKIP)
    in_two(folder, 'sharded', train, guard=SKIP, strategy=SHARDED, runner_type='FlexibleRunner')
