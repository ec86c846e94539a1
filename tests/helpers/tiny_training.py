# Copyright (c) addp_mm contributors. Apache-2.0.
"""Trainings of a model of two layers, which take a tenth of a second."""

from __future__ import annotations

import itertools

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

_RUNS = itertools.count()
IMAGES = 16
BATCH = 4


class Numbers(Dataset):
    """Sixteen vectors of three numbers."""

    def __init__(self) -> None:
        self.values = torch.randn(IMAGES, 3, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.values[index]


class TwoLayers(BaseModel):
    """Predicts the sum of a vector."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.backbone, self.head = nn.Linear(3, 4), nn.Linear(4, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, inputs: torch.Tensor, mode: str = 'tensor'):
        values = self.head(self.backbone(inputs).tanh())
        if mode == 'loss':
            return dict(loss=(values.squeeze(1) - inputs.sum(1)).pow(2).mean())
        return [values] if mode == 'predict' else values

    def train_step(self, data, optim_wrapper):
        with optim_wrapper.optim_context(self):
            losses = self(data, mode='loss')
        optim_wrapper.update_params(losses['loss'])
        return losses

    def val_step(self, data):
        return self(data, mode='predict')


class Scores(BaseMetric):
    """Gives a list of scores, one a validation, as 'tiny/acc'."""

    default_prefix = 'tiny'

    def __init__(self, scores=(0.0,)) -> None:
        super().__init__()
        self.scores = list(scores)

    def process(self, data_batch, data_samples) -> None:
        self.results.append(len(data_batch))

    def compute_metrics(self, results) -> dict:
        return dict(acc=self.scores.pop(0) if len(self.scores) > 1 else self.scores[0])


class Rates(Hook):
    """Records the learning rates and weight decays of each iteration, counted from 1."""

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.rates, self.decays = {}, {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        groups = runner.optim_wrapper.optimizer.param_groups
        self.rates[runner.iter + 1] = [group['lr'] for group in groups]
        self.decays[runner.iter + 1] = [group['weight_decay'] for group in groups]


def build_runner(
    work_dir,
    total: int,
    by_epoch: bool = False,
    schedules: list | None = None,
    hooks: tuple = (),
    checkpoint: dict | None = None,
    optim_wrapper: dict | None = None,
    scores: tuple | None = None,
    model: nn.Module | None = None,
    kind: type[Runner] = Runner,
    val_interval: int = 1,
    **settings,
) -> Runner:
    """A Runner for ``total`` iterations or epochs that saves after each."""
    name = f'tiny_{next(_RUNS)}'
    loader = dict(batch_size=BATCH, num_workers=0, dataset=Numbers(), collate_fn=dict(type='default_collate'))
    count = 'max_epochs' if by_epoch else 'max_iters'
    validation = {}
    if scores is not None:
        validation = dict(
            val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
            val_cfg=dict(),
            val_evaluator=[Scores(scores)],
        )
    runner = kind(
        model=model or TwoLayers(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            loader, sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=False)
        ),
        train_cfg={'by_epoch': by_epoch, count: total, 'val_interval': val_interval},
        optim_wrapper=optim_wrapper or dict(optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.05)),
        param_scheduler=schedules,
        default_hooks=dict(
            checkpoint=dict(dict(type='CheckpointHook', by_epoch=by_epoch, interval=1), **(checkpoint or {}))
        ),
        visualizer=dict(type='Visualizer', vis_backends=[], name=name),
        experiment_name=name,
        log_level='WARNING',
        randomness=dict(seed=0),
        cfg=Config(),
        **validation,
        **settings,
    )
    for hook in hooks:
        runner.register_hook(hook)
    return runner
