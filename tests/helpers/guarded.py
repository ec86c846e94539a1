# Copyright (c) addp_mm contributors. Apache-2.0.
"""A training of milliseconds from a config, with named samples, that can be made to fail."""

from __future__ import annotations

import itertools
import math

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.data import Dataset

_RUNS = itertools.count()


@DATASETS.register_module()
class NamedNumbers(Dataset):
    """Sixteen vectors of three numbers; ``bad`` is the number of one that is NaN."""

    def __init__(self, bad: int | None = None) -> None:
        self.values = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
        if bad is not None:
            self.values[bad, 1] = math.nan

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> dict:
        sample = DataSample(metainfo=dict(img_path=f'images/{index}.png')).set_gt_label(index % 2)
        return dict(inputs=self.values[index].clone(), data_samples=sample)


@MODELS.register_module()
class SumNet(BaseModel):
    """Predicts the sum of a vector, with batch norm and dropout."""

    def __init__(self, data_preprocessor: dict | None = None) -> None:
        super().__init__(data_preprocessor)
        torch.manual_seed(1)
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.2))
        self.head = nn.Linear(4, 1)

    def forward(self, inputs, data_samples=None, mode: str = 'tensor'):
        inputs = torch.stack(inputs) if isinstance(inputs, list) else inputs
        values = self.head(self.backbone(inputs)).squeeze(1)
        return dict(loss=(values - inputs.sum(1)).square().mean()) if mode == 'loss' else values


@HOOKS.register_module()
class BadGradient(Hook):
    """Makes the gradient of a parameter infinite in some iterations, counted from 1."""

    def __init__(self, iterations, name: str = 'head.weight') -> None:
        self.iterations, self.name = set(iterations), name

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter + 1 in self.iterations:
            weight = runner.model.get_parameter(self.name)
            self.handle = weight.register_hook(lambda gradient: gradient * math.inf)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if hasattr(self, 'handle'):
            self.handle.remove()


class States(Hook):
    """Keeps weights, buffers, moments and rates before each iteration, counted from 1."""

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.states, self.rates = {}, {}

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.states[runner.iter + 1] = state_of(runner)
        self.rates.setdefault(runner.iter + 1, []).append(runner.optim_wrapper.get_lr()['lr'][0])


def state_of(runner: Runner) -> dict:
    """Tensors of the model and the optimizer by name."""
    found = {name: value.clone() for name, value in runner.model.state_dict().items()}
    for number, state in runner.optim_wrapper.state_dict()['state'].items():
        found |= {f'{number}.{name}': torch.as_tensor(value).clone() for name, value in state.items()}
    return found


def different(first: dict, second: dict) -> list[str]:
    """Names of the tensors that differ."""
    assert first.keys() == second.keys()
    return [name for name, value in first.items() if not torch.equal(value, second[name])]


def build(
    work_dir,
    guard: dict | None = None,
    bad: int | None = None,
    hooks=(),
    max_iters: int = 6,
    wrapper: dict | None = None,
    resume=None,
    shuffle: bool = False,
    **settings,
) -> Runner:
    """A Runner of batches of four samples in their order: sample 9 is in iterations 3, 7, ….

    ``guard`` has the options of the TrainingGuardHook; None: there is none.
    """
    name = f'guarded_{next(_RUNS)}'
    objects = [hook for hook in hooks if isinstance(hook, Hook)]
    cfg = Config(
        dict(
            model=dict(type='SumNet'),
            work_dir=str(work_dir),
            train_dataloader=dict(
                batch_size=4,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=shuffle),
                dataset=dict(type='NamedNumbers', bad=bad),
                collate_fn=dict(type='default_collate'),
            ),
            train_cfg=dict(by_epoch=False, max_iters=max_iters),
            optim_wrapper=dict(dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2)), **(wrapper or {})),
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4),
                dict(type='CosineAnnealingLR', by_epoch=False, begin=4, end=20),
            ],
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
                random_state=dict(type='addp_mm.RandomStateHook'),
                **({} if guard is None else dict(guard=dict(type='addp_mm.TrainingGuardHook', **guard))),
            ),
            custom_hooks=[hook for hook in hooks if isinstance(hook, dict)],
            visualizer=dict(type='Visualizer', vis_backends=[], name=name),
            default_scope='mmpretrain',
            experiment_name=name,
            log_level='ERROR',
            log_processor=dict(by_epoch=False),
            randomness=dict(seed=3),
            resume=bool(resume),
            load_from=resume and str(resume),
        )
    )
    cfg.merge_from_dict(settings)
    runner = Runner.from_cfg(cfg)
    for hook in objects:
        runner.register_hook(hook)
    return runner
