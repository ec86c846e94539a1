# Copyright (c) addp_mm contributors. Apache-2.0.
"""A training of milliseconds with any loop, sampler and dataset, which records what it reads."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset, RandomSampler

_RUNS = itertools.count()
WORKERS = dict(num_workers=2, persistent_workers=True)
ASPECT = dict(batch_sampler=dict(type='mmdet.AspectRatioBatchSampler'))
# by epoch; the samplers and workers of the loader. An epoch has 6 batches of 2.
SAMPLERS = {
    'stock infinite': (False, dict(sampler=dict(type='InfiniteSampler')) | WORKERS),
    'ours infinite': (False, dict(sampler=dict(type='addp_mm.ResumableInfiniteSampler')) | WORKERS),
    'passes by iterations': (False, dict(sampler=dict(type='DefaultSampler'))),
    'aspect ratios by iterations': (False, dict(sampler=dict(type='DefaultSampler'), **ASPECT)),
    'aspect ratios without end': (False, dict(sampler=dict(type='addp_mm.ResumableInfiniteSampler'), **ASPECT)),
    'stock epochs': (True, dict(sampler=dict(type='DefaultSampler')) | WORKERS),
    'our epochs': (True, dict(sampler=dict(type='addp_mm.ResumableEpochSampler'))),
    'aspect ratios': (True, dict(sampler=dict(type='DefaultSampler'), **ASPECT)),
    'aspect ratios of ours': (True, dict(sampler=dict(type='addp_mm.ResumableEpochSampler'), **ASPECT)),
    'class aware': (True, dict(sampler=dict(type='mmdet.ClassAwareSampler'))),
    'repeated augmentation': (True, dict(sampler=dict(type='mmpretrain.RepeatAugSampler'))),
    'torch, no seed': (True, 'random'),
}


def settings_of(name):
    by_epoch, loader = SAMPLERS[name]
    if loader == 'random':  # draws its order from torch's global generator
        loader = dict(sampler=RandomSampler(range(12)))
    return by_epoch, loader


class LoggedSamples(Dataset):
    """Twelve samples of two classes and shapes: their number, and random numbers of each library.

    Each read appends the torch number, which identifies the position in training, to a file.
    """

    metainfo = dict(classes=('a', 'b'))

    def __init__(self, log: Path, size: int = 12) -> None:
        self.log, self.size = log, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        numbers = [int(index), random.random(), np.random.rand(), torch.rand(()).item()]  # noqa: NPY002
        with self.log.open('a') as file:
            file.write(f'{numbers[-1]!r}\n')
        return dict(inputs=torch.tensor(numbers, dtype=torch.float64))

    def get_data_info(self, index: int) -> dict:
        return dict(width=20 if index % 3 else 10, height=15)

    def get_cat_ids(self, index: int) -> list[int]:
        return [index % 2]


class Dropped(BaseModel):
    """A linear layer with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Linear(4, 4).double(), nn.Dropout(0.5)
        torch.nn.init.eye_(self.layer.weight)

    def forward(self, inputs, mode='loss'):
        return dict(loss=self.drop(self.layer(torch.stack(list(inputs)))).square().mean())


class Batches(Hook):
    """Keeps the samples of each iteration, and its number within the epoch."""

    priority = 'LOW'

    def __init__(self) -> None:
        self.trained: list[list] = []
        self.numbers: list[int] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.trained.append(torch.stack(list(data_batch['inputs'])).tolist())
        self.numbers.append(batch_idx)


def train(
    work_dir: Path, loader: dict, by_epoch: bool, length: int, resume: Path | None = None, dataset=None, **settings
) -> dict:
    """Train ``length`` epochs or iterations, with a checkpoint every second iteration.

    Returns:
        ``weights``, ``trained`` (the samples of each iteration), ``numbers`` of the iterations in
        their epochs, and ``read``, the samples that were loaded.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    name, batches, log = f'any_{next(_RUNS)}', Batches(), work_dir / 'read.txt'
    runner = Runner(
        model=Dropped(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dict(batch_size=2, num_workers=0, dataset=(dataset or LoggedSamples)(log), collate_fn=_collate), **loader
        ),
        train_cfg=dict(by_epoch=True, max_epochs=length) if by_epoch else dict(by_epoch=False, max_iters=length),
        optim_wrapper=settings.pop('optim_wrapper', dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2))),
        default_hooks=dict(
            checkpoint=dict(type='addp_mm.CheckpointHook', by_epoch=False, interval=2),
            random_state=dict(type='addp_mm.RandomStateHook'),
        ),
        custom_hooks=[batches, *(hook() for hook in settings.pop('more_hooks', ()))],
        visualizer=dict(type='Visualizer', vis_backends=[], name=name),
        experiment_name=name,
        log_level='ERROR',
        randomness=settings.pop('randomness', dict(seed=4)),
        resume=resume is not None,
        load_from=resume and str(resume),
        cfg=Config(),
        **settings,
    )
    torch.rand(5)  # a new process has other states than the uninterrupted training
    runner.train()
    workers = runner.train_dataloader._iterator
    if workers is not None:  # the garbage collector would wait for each of them for five seconds
        workers._shutdown_workers()
    return dict(
        weights=runner.model.state_dict(),
        moments=runner.optim_wrapper.optimizer.state_dict()['state'],
        trained=batches.trained,
        numbers=batches.numbers,
        read=[float(line) for line in log.read_text().split()],
    )


def _collate(samples: list) -> dict:
    return dict(inputs=[sample['inputs'] for sample in samples])
