# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmpretrain's own configs with ADDPViT: classifiers, fine-tuning, linear probe."""

import pytest
import torch
from helpers.stock_swaps import WIDTH, build, replaced, step_and_predict, write_swap
from mmengine.config import Config

# A config of mmpretrain, and the text that replaces parts of it.
SWAPS = {
    'resnet': (
        'resnet/resnet50_8xb32_in1k.py',
        """
model = dict(
    backbone=dict(_delete_=True, type='addp_mm.ADDPViT', arch=ARCH, img_size=224, out_type='avg_featmap'),
    neck=None,
    head=dict(in_channels=WIDTH))
""",
    ),
    'deit': (
        'deit/deit-base_16xb64_in1k.py',
        """
model = dict(
    backbone=dict(_delete_=True, type='addp_mm.ADDPViT', arch=ARCH, img_size=224, drop_path_rate=0.1),
    head=dict(in_channels=WIDTH))
""",
    ),
    'mae-fine-tuning': (
        'mae/benchmarks/vit-base-p16_8xb128-coslr-100e_in1k.py',
        """
model = dict(
    backbone=dict(_delete_=True, type='addp_mm.ADDPViT', arch=ARCH, img_size=224, out_type='avg_featmap',
                  drop_path_rate=0.1),
    head=dict(in_channels=WIDTH))
""",
    ),
    'mae-linear-probe': (
        'mae/benchmarks/vit-base-p16_8xb2048-linear-coslr-90e_in1k.py',
        """
model = dict(
    backbone=dict(_delete_=True, type='addp_mm.ADDPViT', arch=ARCH, img_size=224, frozen_stages=4),
    neck=dict(input_features=WIDTH),
    head=dict(in_channels=WIDTH))
""",
    ),
}


def classification_batch() -> dict:
    from mmpretrain.structures import DataSample

    images = torch.randint(0, 256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return dict(inputs=images, data_samples=[DataSample().set_gt_label(label) for label in range(4)])


@pytest.mark.parametrize('name', SWAPS)
def test_only_backbone_neck_and_channels_are_replaced(name, tmp_path):
    base, model = SWAPS[name]
    path = write_swap(tmp_path / 'swap.py', f'mmpretrain::{base}', model)
    (tmp_path / 'stock.py').write_text(f"_base_ = 'mmpretrain::{base}'\n")
    names = replaced(Config.fromfile(path).to_dict(), Config.fromfile(tmp_path / 'stock.py').to_dict())
    assert {item for item in names if not item.startswith(('model.backbone', 'model.neck'))} == {
        'model.head.in_channels'
    }


@pytest.mark.slow
@pytest.mark.parametrize('name, custom_imports', [*((name, False) for name in SWAPS), ('deit', True)])
def test_a_stock_config_trains_and_predicts(name, custom_imports, tmp_path):
    cfg = Config.fromfile(
        write_swap(tmp_path / 'swap.py', f'mmpretrain::{SWAPS[name][0]}', SWAPS[name][1], custom_imports)
    )
    model = build(cfg)
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    logged, idle, predictions = step_and_predict(cfg, model, classification_batch())
    assert torch.isfinite(logged['loss'])
    assert idle == []
    for prediction in predictions:
        assert prediction.pred_score.shape == (1000,)
        assert prediction.pred_score.sum().item() == pytest.approx(1, abs=1e-4)
    assert type(model).__module__.startswith('mmpretrain.')
    assert model.backbone.embed_dims == WIDTH
    same = all(torch.equal(value, before[key]) for key, value in model.backbone.state_dict().items())
    assert same == (name == 'mae-linear-probe')


def test_mmpretrains_layer_decay_uses_the_depths_of_our_backbone(tmp_path):
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import DefaultScope

    base, text = SWAPS['mae-fine-tuning']
    cfg = Config.fromfile(write_swap(tmp_path / 'swap.py', f'mmpretrain::{base}', text))
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
