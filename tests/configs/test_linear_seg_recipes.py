# Copyright (c) addp_mm contributors. Apache-2.0.
"""The linear protocol: DINOv2's published settings, one recipe for each backbone and data set."""

import re
from functools import cache

import numpy as np
import pytest
import torch
from helpers.recipes import CONFIGS, build_on_meta, build_recipe, load_recipe, recipe_scope, shrink, train_step
from helpers.run_tools import ROOT
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from PIL import Image

from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.swap.zoo import ZOO

PATHS = {path.stem: path for path in sorted((CONFIGS / 'seg').glob('linear_*.py'))}
ADE20K = [name for name in PATHS if 'ade20k' in name]
SCENES = [name for name in PATHS if name.endswith('fashion-scenes-224px')]
NANO = 'linear_addp-vit-nano-p8_1xb16-fp32-400i_fashion-scenes-64px'
RANDOM = 'linear_random-vit-nano-p8_1xb16-fp32-400i_fashion-scenes-64px'

# Backbones of few layers, of each class and kind of timm's models. The last value is the side of
# the map that the head sees.
SMALL = [
    ('dinov2-vit-base-p14', {'arch': dict(embed_dims=16, num_layers=2, num_heads=2), 'frozen_stages': 2}, [16], 16),
    ('dinov3-vit-small-p16', {'model_kwargs': dict(embed_dim=32, depth=2, num_heads=2), 'frozen_stages': 2}, [32], 14),
    ('swin-tiny', {'model_kwargs': dict(embed_dim=8, depths=(1,) * 4, num_heads=(1,) * 4)}, [8, 16, 32, 64], 56),
    ('r50', {'model': 'resnet10t'}, [64, 128, 256, 512], 56),
    ('volo-d1', {'arch': 'nano'}, [64, 128, 128, 128], 56),
]


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


def of_ade20k(name: str) -> str:
    """The recipe on ADE20K with the backbone of one on FashionScenes."""
    [found] = [other for other in ADE20K if other.split('_')[1] == name.split('_')[1]]
    return found


@pytest.mark.parametrize('name', SCENES)
def test_on_fashion_scenes_the_protocol_is_that_of_ade20k(name):
    """Images are 224 px for every patch size; 11 classes; the batch norm is that of one GPU."""
    cfg, ade = load(name), load(of_ade20k(name))
    model, expected = cfg.model.to_dict(), ade.model.to_dict()
    head, ade_head = model.pop('decode_head'), expected.pop('decode_head')
    assert head.pop('loss_decode') == {**ade_head.pop('loss_decode'), 'class_weight': [0.1] + [1.0] * 10}
    assert head == {
        **ade_head,
        'num_classes': len(cfg.metainfo.classes),
        'norm_cfg': dict(type='BN', requires_grad=True),
    }
    assert model.pop('data_preprocessor') == {
        **expected.pop('data_preprocessor'),
        'size': (224, 224),
        'test_cfg': dict(size_divisor=32),
    }
    assert model.pop('test_cfg') == dict(mode='whole')
    expected.pop('test_cfg')
    if 'img_size' in expected['backbone']:  # the positions of a checkpoint are resized once
        expected['backbone']['img_size'] = 224
        backbone = build_on_meta(cfg).backbone
        assert backbone.grid_size == (224 // backbone.patch_size,) * 2
    assert model == expected
    assert cfg.optim_wrapper == ade.optim_wrapper
    assert [{**one, 'begin': 0, 'end': 0} for one in cfg.param_scheduler] == [
        {**one, 'begin': 0, 'end': 0} for one in ade.param_scheduler
    ]


def test_every_recipe_has_its_twins():
    twins = {name.replace('ade20k', 'cityscapes') for name in ADE20K}
    scenes = {re.sub(r'_8xb2-fp32-40k_.*', '_1xb16-fp32-400i_fashion-scenes-224px', name) for name in ADE20K}
    assert set(PATHS) == {*ADE20K, *twins, *scenes, NANO, RANDOM}


@pytest.mark.parametrize(
    'name, data',
    [
        (name, data)
        for name in ZOO
        for data in ('ade20k', 'cityscapes', 'fashion-scenes')
        if 'nano' not in name or data == 'fashion-scenes'
    ],
)
def test_every_backbone_of_the_zoo_has_a_recipe(name, data):
    entry = ZOO[name]
    weights = {key: entry.backbone.get(key) for key in ('type', 'arch', 'model', 'init_cfg')}
    recipes = [load(one) for one in PATHS if data in one]
    [recipe] = [one for one in recipes if weights == {key: one.model.backbone.get(key) for key in weights}]
    assert (tuple(recipe.model.data_preprocessor.mean), tuple(recipe.model.data_preprocessor.std)) == entry.colours


@pytest.mark.parametrize('backbone, options, channels, side', SMALL, ids=[backbone for backbone, *_ in SMALL])
def test_it_trains_at_224_px_and_is_measured_at_64_px(backbone, options, channels, side, small_scenes):
    changes = {f'model.backbone.{key}': value for key, value in options.items()}
    cfg = shrink(
        load(f'linear_{backbone}_1xb16-fp32-400i_fashion-scenes-224px'),
        **changes,
        **{'model.decode_head.in_channels': channels},
    )
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(small_scenes)
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    with recipe_scope(cfg):
        model, trained = build_recipe(cfg), next(iter(Runner.build_dataloader(cfg.train_dataloader)))
        assert {sample.gt_sem_seg.shape for sample in trained['data_samples']} == {(224, 224)}
        frozen = {name: value.clone() for name, value in model.backbone.state_dict().items()}
        assert 0 < train_step(cfg, model, trained)['loss'] < 10
        assert all(torch.equal(value, frozen[name]) for name, value in model.backbone.state_dict().items())
        tested = next(iter(Runner.build_dataloader(cfg.test_dataloader)))
        assert {tuple(image.shape) for image in trained['inputs'] + tested['inputs']} == {(3, 224, 224)}
        inputs = model.data_preprocessor(tested)['inputs']
        assert model.eval().extract_feat(inputs)[0].shape[-2:] == (side, side)
        samples = model.test_step(tested)
        metric = Evaluator(cfg.test_evaluator)
        metric.dataset_meta = dict(cfg.metainfo)
        metric.process(samples, tested)
    assert metric.evaluate(2)['mIoU'] >= 0
    for sample in samples:
        labels = np.asarray(Image.open(sample.seg_map_path)).astype(int) - 1
        assert sample.pred_sem_seg.shape == labels.shape == (64, 64)
        assert np.array_equal(sample.gt_sem_seg.data[0], labels)


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
    config = PATHS[NANO]
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
