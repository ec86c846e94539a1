# Copyright (c) addp_mm contributors. Apache-2.0.
"""A VQGAN of a few thousand weights on 16 px images: 16 tokens, 32 codes."""
from __future__ import annotations

import torch
from mmengine.registry import DefaultScope

from addp_mm.registry import MODELS

TOKENIZER = dict(type='addp_mm.VQTokenizer', stem_stride=4, base_channels=8, channel_mults=(1, ), num_res_blocks=1,
                 num_mid_blocks=1, codebook_size=32, embed_dims=4, num_groups=4, shortcut_from='input')
DISCRIMINATOR = dict(type='addp_mm.PatchDiscriminator', base_channels=4, num_layers=1)
OPTIM_WRAPPER = dict(
    constructor='addp_mm.PartsOptimWrapperConstructor',
    tokenizer=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3, betas=(0.5, 0.9))),
    discriminator=dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3, betas=(0.5, 0.9))))


def build(tokenizer: dict | None = None, seed: int = 0, **settings):
    """VQGANPretrain; ``tokenizer`` changes options of the tokenizer."""
    torch.manual_seed(seed)
    preprocessor = dict(type='mmpretrain.SelfSupDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255])
    cfg = dict(type='addp_mm.VQGANPretrain', tokenizer=dict(TOKENIZER, **(tokenizer or {})),
               discriminator=dict(DISCRIMINATOR), data_preprocessor=preprocessor)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build({**cfg, **settings})


def images(batch: int = 4, channels: int = 3, seed: int = 2) -> torch.Tensor:
    return torch.rand(batch, channels, 16, 16, generator=torch.Generator().manual_seed(seed))


def batch_of(inputs: torch.Tensor) -> dict:
    """What a data loader gives: uint8 images and no labels."""
    return dict(inputs=(255 * inputs).round().to(torch.uint8), data_samples=None)


def optimizers(model, **changes):
    """The wrapper of a config; ``changes`` go into both parts."""
    from mmengine.optim import build_optim_wrapper
    cfg = {name: dict(part, **changes) if isinstance(part, dict) else part for name, part in OPTIM_WRAPPER.items()}
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return build_optim_wrapper(model, cfg)
