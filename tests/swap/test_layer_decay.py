# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmpretrain's own layer decay uses the depths of our backbone."""

import pytest
from helpers.hand_swaps import build, write_swap
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

FINE_TUNING = 'mmpretrain::mae/benchmarks/vit-base-p16_8xb128-coslr-100e_in1k.py'
MODEL = """
model = dict(
    backbone=dict(_delete_=True, type='addp_mm.ADDPViT', arch=ARCH, img_size=224, out_type='avg_featmap'),
    head=dict(in_channels=WIDTH))
"""


def test_mmpretrains_layer_decay_uses_the_depths_of_our_backbone(tmp_path):
    cfg = Config.fromfile(write_swap(tmp_path / 'swap.py', FINE_TUNING, MODEL))
    model = build(cfg)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    rates = {id(parameter): group['lr'] for group in groups for parameter in group['params']}
    lr, decay = cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.paramwise_cfg.layer_decay_rate
    backbone = model.backbone
    for parameter, steps in (
        (backbone.patch_embed.projection.weight, 5),
        (backbone.blocks[0].mlp.fc1.bias, 4),
        (backbone.blocks[3].attn.qkv.weight, 1),
        (model.head.fc.weight, 0),
    ):
        assert rates[id(parameter)] == pytest.approx(lr * decay**steps)
