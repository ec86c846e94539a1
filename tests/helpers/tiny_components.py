# Copyright (c) addp_mm contributors. Apache-2.0.
"""ADDP of a few thousand weights on 16 px images: 16 tokens, 16 codes."""

import torch
from mmengine.registry import DefaultScope

from addp_mm.diffusion import NoiseDraw, NoiseSchedule
from addp_mm.registry import MODELS

SPACE = dict(codebook_size=16, num_class_slots=2, fake_class_slot=1)


def config() -> dict:
    return dict(
        type='addp_mm.ADDP',
        tokenizer=dict(
            type='addp_mm.VQTokenizer',
            base_channels=32,
            channel_mults=(1, 2),
            stem_stride=2,
            codebook_size=16,
            embed_dims=4,
            num_res_blocks=1,
            num_mid_blocks=1,
            normalize_codes=True,
        ),
        predictor=dict(
            type='addp_mm.MaskedTokenPredictor',
            num_tokens=16,
            embed_dims=8,
            num_layers=1,
            num_heads=2,
            decoder_embed_dims=12,
            decoder_num_layers=1,
            token_space=SPACE,
        ),
        backbone=dict(
            type='addp_mm.ADDPViT',
            arch=dict(embed_dims=8, num_layers=2, num_heads=2),
            img_size=16,
            patch_size=4,
            out_type='raw',
            pre_norm=True,
        ),
        neck=dict(
            type='addp_mm.TokenDecoder',
            num_tokens=16,
            in_dims=8,
            num_layers=1,
            num_heads=2,
            drop_rate=0.0,
            token_space=SPACE,
        ),
        head=dict(
            type='addp_mm.TokenHead', in_dims=8, token_space=SPACE, loss=dict(type='addp_mm.SoftTargetCrossEntropy')
        ),
        data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255]),
    )


def build(**changes):
    """The model, with changes of components, such as ``predictor=dict(train_dropout=True)``."""
    settings = config()
    for name, change in changes.items():
        settings[name] = dict(settings[name], **change) if name in settings else change
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(settings)


def noise(step: int = 20, next_step: int = 40, seed: int = 1) -> NoiseDraw:
    return NoiseDraw(NoiseSchedule().level(step, next_step), torch.Generator().manual_seed(seed))


def images(batch: int = 3, seed: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
