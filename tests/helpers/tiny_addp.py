# Copyright (c) addp_mm contributors. Apache-2.0.
"""ADDP of a few thousand weights on 16 px, from a config file."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.registry import DefaultScope

from addp_mm.models.selfsup import mark_loaded
from addp_mm.registry import MODELS

SPACE = dict(codebook_size=16, num_class_slots=1, fake_class_slot=0)
MODEL = dict(
    type='addp_mm.ADDP',
    tokenizer=dict(
        type='addp_mm.VQTokenizer',
        base_channels=32,
        channel_mults=(1,),
        stem_stride=4,
        codebook_size=16,
        embed_dims=4,
        num_res_blocks=1,
        num_mid_blocks=0,
    ),
    predictor=dict(
        type='addp_mm.MaskedTokenPredictor',
        num_tokens=16,
        embed_dims=8,
        num_layers=1,
        num_heads=2,
        decoder_num_layers=1,
        token_space=SPACE,
    ),
    backbone=dict(
        type='addp_mm.ADDPViT',
        arch=dict(embed_dims=8, num_layers=1, num_heads=2),
        img_size=16,
        patch_size=4,
        out_type='raw',
        pre_norm=True,
    ),
    neck=dict(type='addp_mm.TokenDecoder', num_tokens=16, in_dims=8, num_layers=1, num_heads=2, token_space=SPACE),
    head=dict(type='addp_mm.TokenHead', in_dims=8, token_space=SPACE, loss=dict(type='addp_mm.SoftTargetCrossEntropy')),
    data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255], to_rgb=True),
)


def build_model(seed: int = 0, **backbone):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(dict(MODEL, backbone=dict(MODEL['backbone'], **backbone)))
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    mark_loaded(model.tokenizer)
    mark_loaded(model.predictor)
    return model


def write_config(folder: Path) -> Path:
    path = folder / 'addp_tiny.py'
    path.write_text(f"default_scope = 'mmpretrain'\nmodel = {MODEL!r}\n")
    return path
