# Copyright (c) addp_mm contributors. Apache-2.0.
"""ADDP on 16 px noise: one process, DDP and FSDP, with the same images, levels and masks."""

from __future__ import annotations

import copy
from pathlib import Path

import mmpretrain.models  # noqa: F401  # once, before the forks
import torch
from mmengine import dist
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from addp_mm.diffusion import nested_masks
from addp_mm.engine.hooks import random_state_hook
from addp_mm.models.selfsup import addp, mark_loaded
from addp_mm.randomness import seed_process
from addp_mm.registry import MODELS
from helpers.jobs import in_one, in_two
from helpers.recording import OPTIM_WRAPPER, train
from helpers.tiny_addp import MODEL

SHARDED = dict(type='addp_mm.ShardedStrategy')
BFLOAT16 = dict(OPTIM_WRAPPER, type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(enabled=False))
HOOK = dict(type='addp_mm.GenerativePretrainHook', preview_interval=2, preview_images=2, sampler=dict(num_steps=2))


class Noise(Dataset):
    images = torch.randint(256, (64, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=self.images[index], data_samples=DataSample())


def pin_noise() -> None:
    """Every rank draws rank 0's levels, and its own rows of the masks of the whole batch."""
    random_state_hook.seed_process = lambda seed, purpose, rank, iteration: seed_process(seed, purpose, 0, iteration)

    def own_rows(num_tokens, level, batch_size, generator, device=None):
        masks = nested_masks(num_tokens, level, batch_size * dist.get_world_size(), generator, device)
        return tuple(mask[dist.get_rank() :: dist.get_world_size()] for mask in masks)

    addp.nested_masks = own_rows


def pretrain(work_dir: Path, world_size: int, **options) -> dict:
    settings = copy.deepcopy(MODEL)
    settings['neck'].update(drop_rate=0.0, num_layers=2)
    settings['backbone']['arch'] = dict(embed_dims=8, num_layers=3, num_heads=2)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(settings)
    # initial biases and tables of zeros would hide mistakes
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    mark_loaded(model.tokenizer)
    mark_loaded(model.predictor)
    pin_noise()
    options.setdefault('hooks', [HOOK])
    return train(work_dir, world_size, model, Noise(), 8, scope='mmpretrain', **options)


def run(folder: Path) -> None:
    in_one(folder, 'one', pretrain)
    in_two(folder, 'ddp', pretrain)
    in_two(folder, 'sharded', pretrain, strategy=dict(SHARDED))
    of_one, of_two = (str(folder / name / 'iter_2.pth') for name in ('one', 'sharded'))
    in_two(folder, 'sharded_resumed', pretrain, strategy=dict(SHARDED), resume=of_two, seed=1)
    in_one(folder, 'one_resumed', pretrain, resume=of_two, seed=1)
    in_two(folder, 'sharded_from_one', pretrain, strategy=dict(SHARDED), resume=of_one, seed=1)
    in_two(folder, 'sharded_bfloat16', pretrain, strategy=dict(SHARDED, checkpoint_units=True), optim_wrapper=BFLOAT16)
