# Copyright (c) addp_mm contributors. Apache-2.0.
"""A pre-training that takes a second: ADDP on 16 px noise, built as a config builds it."""
from __future__ import annotations

import itertools
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from addp_mm.models.selfsup import mark_loaded
from addp_mm.registry import MODELS

# mmengine hands out the visualizer and the message hub of an earlier run of the same name
_RUNS = itertools.count()
SPACE = dict(codebook_size=16, num_class_slots=1, fake_class_slot=0)


def model_config() -> dict:
    return dict(
        type='addp_mm.ADDP',
        tokenizer=dict(type='addp_mm.VQTokenizer', base_channels=32, channel_mults=(1, ), stem_stride=4,
                       codebook_size=16, embed_dims=4, num_res_blocks=1, num_mid_blocks=0),
        predictor=dict(type='addp_mm.MaskedTokenPredictor', num_tokens=16, embed_dims=8, num_layers=1, num_heads=2,
                       decoder_num_layers=1, token_space=SPACE),
        backbone=dict(type='addp_mm.ADDPViT', arch=dict(embed_dims=8, num_layers=1, num_heads=2), img_size=16,
                      patch_size=4, out_type='raw', pre_norm=True),
        neck=dict(type='addp_mm.TokenDecoder', num_tokens=16, in_dims=8, num_layers=1, num_heads=2, drop_rate=0.0,
                  token_space=SPACE),
        head=dict(type='addp_mm.TokenHead', in_dims=8, token_space=SPACE,
                  loss=dict(type='addp_mm.SoftTargetCrossEntropy')),
        data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255],
                               to_rgb=True))


def build_model(loaded: bool = True, seed: int = 0):
    """ADDP with seeded weights; ``loaded`` says whether its frozen parts pass as loaded."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(model_config())
    if loaded:
        mark_loaded(model.tokenizer)
        mark_loaded(model.predictor)
    return model


class SeededNoise(Dataset):
    """uint8 noise images, packed as mmpretrain does."""

    def __init__(self, length: int = 16) -> None:
        self.images = torch.randint(256, (length, 3, 16, 16), dtype=torch.uint8,
                                    generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=self.images[index], data_samples=DataSample())


def build_runner(work_dir: Path, hook: dict, max_iters: int = 6, model=None, extra_hooks: list | None = None,
                 by_epoch: bool = False, checkpoint_interval: int = 2, **settings) -> Runner:
    name = f'run_{next(_RUNS)}'
    cfg = dict(
        model=model or build_model(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler',
                                                      shuffle=False),
            dataset=SeededNoise(), collate_fn=default_collate),
        train_cfg=dict(by_epoch=True, max_epochs=max_iters) if by_epoch else dict(by_epoch=False, max_iters=max_iters),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2)),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=20)],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=by_epoch, interval=checkpoint_interval, max_keep_ckpts=3),
            logger=dict(type='LoggerHook', interval=1)),
        log_processor=dict(by_epoch=by_epoch),
        custom_hooks=[dict(dict(type='addp_mm.GenerativePretrainHook', preview_interval=0), **hook)],
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')],
                        name=name),
        default_scope='mmpretrain', experiment_name=name, log_level='WARNING',
        randomness=dict(seed=0), cfg=Config(), **settings)
    runner = Runner(**cfg)
    for extra in extra_hooks or []:
        runner.register_hook(extra)
    return runner
