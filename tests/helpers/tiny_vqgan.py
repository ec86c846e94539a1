# Copyright (c) addp_mm contributors. Apache-2.0.
"""A VQGAN of a few thousand weights on 16 px images: 16 tokens, 32 codes."""

from __future__ import annotations

import itertools

import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from addp_mm.registry import MODELS

_RUNS = itertools.count()
TOKENIZER = dict(
    type='addp_mm.VQTokenizer',
    stem_stride=4,
    base_channels=8,
    channel_mults=(1,),
    num_res_blocks=1,
    num_mid_blocks=1,
    codebook_size=32,
    embed_dims=4,
    num_groups=4,
    shortcut_from='input',
)
DISCRIMINATOR = dict(type='addp_mm.PatchDiscriminator', base_channels=4, num_layers=1)
OPTIM_WRAPPER = dict(
    constructor='addp_mm.ComponentsOptimWrapperConstructor',
    tokenizer=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3, betas=(0.5, 0.9))),
    discriminator=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3, betas=(0.5, 0.9))),
)


def build(tokenizer: dict | None = None, seed: int = 0, **settings):
    """VQGANPretrain, or the class of ``type``; ``tokenizer`` changes options of the tokenizer."""
    torch.manual_seed(seed)
    preprocessor = dict(type='mmpretrain.SelfSupDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255])
    cfg = dict(
        type='addp_mm.VQGANPretrain',
        tokenizer=dict(TOKENIZER, **(tokenizer or {})),
        discriminator=dict(DISCRIMINATOR),
        data_preprocessor=preprocessor,
    )
    cfg.update(settings)
    if cfg['type'] == 'addp_mm.TokenizerPretrain':
        del cfg['discriminator']
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(cfg)


def images(batch: int = 4, channels: int = 3, seed: int = 2) -> torch.Tensor:
    return torch.rand(batch, channels, 16, 16, generator=torch.Generator().manual_seed(seed))


def batch_of(inputs: torch.Tensor) -> dict:
    """A batch of a data loader: uint8 images without labels."""
    return dict(inputs=(255 * inputs).round().to(torch.uint8), data_samples=None)


def optimizers(model, **changes):
    """The optimizer wrapper of a config; ``changes`` apply to both components."""
    from mmengine.optim import build_optim_wrapper

    cfg = {name: dict(part, **changes) if isinstance(part, dict) else part for name, part in OPTIM_WRAPPER.items()}
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return build_optim_wrapper(model, cfg)


class Images(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=batch_of(images(8))['inputs'][index], data_samples=DataSample())


def build_runner(
    work_dir,
    model,
    hooks=(),
    max_iters=6,
    checkpoint_interval=100,
    resume=None,
    by_epoch=False,
    evaluator=None,
    optim_wrapper=None,
    checkpoint=None,
    **settings,
) -> Runner:
    """A Runner that trains on eight images; ``evaluator`` runs every third iteration."""
    name = f'vqgan_{next(_RUNS)}'
    loader = dict(
        batch_size=4,
        num_workers=0,
        dataset=Images(),
        collate_fn=default_collate,
        sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=False),
    )
    if evaluator is not None:
        settings.update(
            val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
            val_cfg=dict(),
            val_evaluator=evaluator,
        )
    return Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=loader,
        optim_wrapper=optim_wrapper or OPTIM_WRAPPER,
        train_cfg=dict(by_epoch=True, max_epochs=1)
        if by_epoch
        else dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=3),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=20)],
        default_hooks=dict(
            checkpoint=dict(
                dict(type='CheckpointHook', by_epoch=False, interval=checkpoint_interval), **(checkpoint or {})
            ),
            logger=dict(type='LoggerHook', interval=1),
        ),
        log_processor=dict(by_epoch=False),
        custom_hooks=list(hooks),
        default_scope='mmpretrain',
        experiment_name=name,
        log_level='ERROR',
        randomness=dict(seed=0),
        resume=bool(resume),
        load_from=resume,
        cfg=Config(),
        **settings,
    )
