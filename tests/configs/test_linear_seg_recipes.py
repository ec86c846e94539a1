# Copyright (c) addp_mm contributors. Apache-2.0.
"""The linear protocol: DINOv2's published settings, one recipe for each backbone and data set."""

from functools import cache

import pytest
import torch
from helpers.recipes import build_on_meta, load_recipe, recipe_paths
from helpers.run_tools import ROOT
from mmengine.config import Config

from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.swap.zoo import ZOO

PATHS = {path.stem: path for path in recipe_paths('seg', 'linear_*.py')}
ADE20K = [name for name in PATHS if 'ade20k' in name]
NANO = 'seg/linear_addp-vit-nano-p8_1xb16-fp32-400i_fashion-scenes-64px.py'


@cache
def load(name: str) -> Config:
    return load_recipe(PATHS[name])


@pytest.mark.parametrize('name', ADE20K)
def test_settings_are_those_of_dinov2(name):
    """dinov2_vitb14_ade20k_linear_config.py of its release; crops are whole patches."""
    cfg = load(name)
    assert cfg.optim_wrapper == dict(
        type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.999))
    )
    warm_up, poly = cfg.param_scheduler
    assert (warm_up.start_factor, warm_up.end) == (1e-6, 1500)
    assert (poly.type, poly.power, poly.begin, poly.end) == ('PolyLR', 1.0, 1500, 40_000)
    assert cfg.train_cfg.max_iters == 40_000
    assert cfg.train_dataloader.batch_size == 2
    crop, stride = ((518, 518), (345, 345)) if '-p14' in name else ((512, 512), (341, 341))
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=crop, stride=stride)
    assert cfg.model.data_preprocessor.size == crop
    assert [step.crop_size for step in cfg.train_pipeline if step.type == 'RandomCrop'] == [crop]
    head = cfg.model.decode_head
    assert (head.type, head.norm_cfg.type) == ('addp_mm.LinearSegHead', 'SyncBN')
    assert head.get('dropout_ratio', 0) == 0


@pytest.mark.parametrize('name', ADE20K)
def test_only_the_head_is_trained(name):
    cfg = load(name)
    model = build_on_meta(cfg).train()
    assert {parameter for parameter, value in model.named_parameters() if value.requires_grad} == {
        f'decode_head.{layer}.{kind}' for layer in ('norm', 'conv_seg') for kind in ('weight', 'bias')
    }
    layers = [part for child in model.backbone.children() for part in child.modules()]
    assert [part for part in layers if part.training and list(part.parameters(recurse=False))] == []
    assert tuple(cfg.model.decode_head.in_channels) == tuple(model.backbone.out_channels)
    assert model.backbone.out_strides[0] == min(model.backbone.out_strides)  # the head resizes to the first map


@pytest.mark.parametrize('name', ADE20K)
def test_cityscapes_differs_in_the_data_only(name):
    ade, cityscapes = load(name), load(name.replace('ade20k', 'cityscapes'))
    model = cityscapes.model.to_dict() if isinstance(cityscapes.model, Config) else dict(cityscapes.model)
    assert model['decode_head'].pop('num_classes') == 19
    expected = dict(ade.model)
    expected['decode_head'] = {key: value for key, value in ade.model.decode_head.items() if key != 'num_classes'}
    assert model == expected
    for part in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'default_hooks'):
        assert cityscapes[part] == ade[part]
    assert cityscapes.train_dataloader.batch_size == 2
    assert cityscapes.crop_size == ade.crop_size


def test_every_recipe_has_its_twin():
    twins = {name.replace('ade20k', 'cityscapes') for name in ADE20K}
    assert set(PATHS) == {*ADE20K, *twins}


@pytest.mark.parametrize('name', [name for name in ZOO if 'nano' not in name])
def test_every_backbone_of_the_zoo_has_a_recipe(name):
    entry = ZOO[name]
    weights = {key: entry.backbone.get(key) for key in ('type', 'arch', 'model', 'init_cfg')}
    [recipe] = [one for one in map(load, ADE20K) if weights == {key: one.model.backbone.get(key) for key in weights}]
    assert (tuple(recipe.model.data_preprocessor.mean), tuple(recipe.model.data_preprocessor.std)) == entry.colours


@pytest.mark.slow
def test_train_and_test_by_the_tools(tmp_path, small_scenes, run_tool):
    """The weights of the backbone stay those of the package; the head learns."""
    shorter = [
        f'train_dataloader.dataset.data_root={small_scenes}',
        f'val_dataloader.dataset.data_root={small_scenes}',
        f'test_dataloader.dataset.data_root={small_scenes}',
        'train_dataloader.batch_size=2',
        'train_cfg.max_iters=3',
        'train_cfg.val_interval=3',
        'default_hooks.checkpoint.interval=3',
    ]
    config = ROOT / 'configs' / NANO
    finished = run_tool('train.py', config, '--work-dir', tmp_path / 'run', '--cfg-options', *shorter)
    assert finished.status == 0, finished.output
    weights = load_checkpoint_file(str(tmp_path / 'run/iter_3.pth'))['state_dict']
    shipped = load_checkpoint_file(str(ROOT / 'addp_mm/assets/addp_nano-p8.safetensors'))['state_dict']
    backbone = [name for name in weights if name.startswith('backbone.')]
    assert len(backbone) > 70
    assert [name for name in backbone if not torch.equal(weights[name], shipped[name].float())] == []
    assert weights['decode_head.norm.num_batches_tracked'] == 3
    assert not torch.equal(weights['decode_head.norm.weight'], torch.ones(128))
    finished = run_tool('test.py', config, tmp_path / 'run/iter_3.pth', '--cfg-options', *shorter[:3])
    assert finished.status == 0, finished.output
    assert 'mIoU' in finished.output
