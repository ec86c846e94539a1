# Copyright (c) addp_mm contributors. Apache-2.0.
"""A pre-training that takes a second: ADDP on 16 px noise, built from a config."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from helpers.tiny_addp import build_model

# mmengine reuses the visualizer and the message hub of an earlier run of the same name
_RUNS = itertools.count()


class SeededNoise(Dataset):
    """uint8 noise images, packed as mmpretrain does, with labels below ``num_classes``."""

    def __init__(self, length: int = 16, num_classes: int = 0) -> None:
        self.num_classes = num_classes
        self.images = torch.randint(
            256, (length, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        sample = DataSample()
        if self.num_classes:
            sample.set_gt_label(index % self.num_classes)
        return dict(inputs=self.images[index], data_samples=sample)


def build_runner(
    work_dir: Path,
    hook: dict | None = None,
    max_iters: int = 6,
    model=None,
    extra_hooks: list | None = None,
    custom_hooks: list | None = None,
    by_epoch: bool = False,
    checkpoint_interval: int = 2,
    checkpoint: dict | None = None,
    seed: int | None = 0,
    num_classes: int = 0,
    guard: dict | None = None,
    **settings,
) -> Runner:
    """A Runner with GenerativePretrainHook (``hook``: its options) or ``custom_hooks``.

    ``guard`` has the options of its TrainingGuardHook.
    """
    pretrain_hook = dict(dict(type='addp_mm.GenerativePretrainHook', preview_interval=0), **(hook or {}))
    name = f'run_{next(_RUNS)}'
    cfg = dict(
        model=model or build_model(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=False),
            dataset=SeededNoise(num_classes=num_classes),
            collate_fn=default_collate,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=max_iters) if by_epoch else dict(by_epoch=False, max_iters=max_iters),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2)),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=20)],
        default_hooks=dict(
            checkpoint=dict(
                dict(type='CheckpointHook', by_epoch=by_epoch, interval=checkpoint_interval, max_keep_ckpts=3),
                **(checkpoint or {}),
            ),
            logger=dict(type='LoggerHook', interval=1),
            random_state=dict(type='addp_mm.RandomStateHook'),
            guard=dict(type='addp_mm.TrainingGuardHook', **(guard or {})),
        ),
        log_processor=dict(by_epoch=by_epoch),
        custom_hooks=[pretrain_hook] if custom_hooks is None else custom_hooks,
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')], name=name),
        default_scope='mmpretrain',
        experiment_name=name,
        log_level='WARNING',
        randomness=dict(seed=seed),
        cfg=Config(),
        **settings,
    )
    runner = Runner(**cfg)
    for extra in extra_hooks or []:
        runner.register_hook(extra)
    return runner
