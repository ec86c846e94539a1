# Copyright (c) addp_mm contributors. Apache-2.0.
"""Segmentation recipes: models, learning rates, weight decay, schedule, one step of each family."""

import re
from functools import cache

import pytest
import torch
from helpers.recipes import (
    build_on_meta,
    build_optimizer,
    build_recipe,
    load_recipe,
    optimizer_table,
    recipe_paths,
    recipe_scope,
    shrink,
    undocumented,
)
from helpers.seg_data import write_ade20k, write_cityscapes
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, PARAM_SCHEDULERS
from mmengine.runner import Runner
from torch import nn

# test_volo_recipes.py has those with VOLO
PATHS = {path.stem: path for path in recipe_paths('seg') if '_volo-' not in path.stem}
TRAINED = [name for name in PATHS if '-vit-' in name and not name.endswith('-ms')]
# (learning rate at batch 16, layer decay, drop path, outputs), from the README of configs/seg
SETTINGS = {
    'base': (1e-4, 0.65, 0.1, (3, 5, 7, 11)),
    'large': (4e-5, 0.9, 0.2, (7, 11, 15, 23)),
    'beitv2': (5e-5, 0.75, 0.15, (3, 5, 7, 11)),
}
UPERNET = 'upernet_addp-vit-base-p16_8xb2-bf16-160k_ade20k-512x512'
SEGMENTER = 'segmenter-mask_addp-vit-base-p16_8xb2-bf16-160k_ade20k-512x512'
MASK2FORMER = 'mask2former_addp-vit-base-p16_8xb2-fp32-160k_ade20k-512x512'
CITYSCAPES = 'upernet_addp-vit-base-p16_8xb1-bf16-80k_cityscapes-768x768'


def settings_of(name: str) -> tuple:
    return SETTINGS[next(key for key in ('beitv2', 'large', 'base') if key in name)]


@cache
def on_meta(name: str):
    cfg = load_recipe(PATHS[name])
    return cfg, build_on_meta(cfg)


@pytest.mark.parametrize('name', PATHS)
def test_a_config_builds_the_model_of_its_name(name):
    cfg, model = on_meta(name)
    if name.endswith('-ms'):
        assert cfg.train_cfg is None
        assert model.module.backbone.num_layers in (12, 24)
        return
    gpus_batch, precision, length = re.search(r'_(\d+xb\d+)-(bf16-|fp32-|)(\d+)k_', name).groups()
    gpus, batch = map(int, gpus_batch.split('xb'))
    height, width = map(int, re.search(r'-(\d+)x(\d+)(-ms)?$', name).groups()[:2])
    assert cfg.default_scope == 'mmseg'
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == 1000 * int(length)
    assert tuple(cfg.model.data_preprocessor.size) == (height, width)
    assert (cfg.optim_wrapper.type == 'AmpOptimWrapper') == (precision == 'bf16-')
    assert cfg.get('auto_scale_lr', {}).get('base_batch_size', gpus * batch) == gpus * batch
    num_classes = 19 if 'cityscapes' in name else 150
    assert (
        model.decode_head.num_classes
        == num_classes
        == len(DATASETS.get(f'mmseg.{cfg.train_dataloader.dataset.type}').METAINFO['classes'])
    )


@pytest.mark.parametrize('name', TRAINED)
def test_the_backbone_is_that_of_the_recipe(name):
    cfg, model = on_meta(name)
    _, _, drop_path, outputs = settings_of(name)
    backbone = model.backbone
    assert backbone.blocks[-1].drop_path.drop_prob == pytest.approx(drop_path)
    assert backbone.out_indices == ((backbone.num_layers - 1,) if 'segmenter' in name else outputs)
    assert (model.backbone.embed_dims == 1024) == ('vit-large' in name)
    crop, window = cfg.model.data_preprocessor.size, cfg.model.test_cfg.get('crop_size')
    assert tuple(side * backbone.patch_size for side in backbone.grid_size) == tuple(crop)
    assert ('mask2former' in name) == (window is None)
    assert window in (None, crop)
    cuts = [step.crop_size for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomCrop']
    assert cuts == [crop]


@pytest.mark.parametrize('name', [name for name in TRAINED if 'addp-vit' not in name])
def test_a_baseline_differs_only_in_its_encoder(name):
    """DINOv2's crops have 37 or 55 patches of 14 px per side; AugReg's images are in [-1, 1]."""
    ours = re.sub(r'(?<=_)(mae|beitv2|deit3|augreg)-vit', 'addp-vit', name)
    ours = re.sub(r'dinov2-vit-base-p14(.*)518x518', r'addp-vit-base-p16\g<1>512x512', ours)
    ours = re.sub(r'dinov2-vit-base-p14(.*)770x770', r'addp-vit-base-p16\g<1>768x768', ours)
    cfg, base = load_recipe(PATHS[name]), load_recipe(PATHS[ours])
    assert cfg.model.backbone.init_cfg.checkpoint != base.model.backbone.init_cfg.checkpoint
    for part in ('neck', 'decode_head', 'auxiliary_head'):
        assert cfg.model.get(part) == base.model.get(part)
    assert cfg.param_scheduler == base.param_scheduler
    assert cfg.train_cfg == base.train_cfg
    assert cfg.train_dataloader.batch_size == base.train_dataloader.batch_size
    if 'beitv2' not in name:
        assert cfg.optim_wrapper == base.optim_wrapper
    if 'dinov2' not in name:
        assert cfg.train_dataloader == base.train_dataloader
        assert cfg.model.test_cfg == base.model.test_cfg
    assert (cfg.model.data_preprocessor.mean == base.model.data_preprocessor.mean) == ('augreg' not in name)


@pytest.mark.parametrize('name', TRAINED)
def test_learning_rate_and_decay_of_every_parameter(name):
    cfg, model = on_meta(name)
    lr, layer_decay, *_ = settings_of(name)
    depths = model.backbone.num_layers + 1
    batch = 8 if 'cityscapes' in name else 16
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(lr * batch / 16)
    expected = {}
    for parameter_name, parameter in model.named_parameters():
        block = re.match(r'backbone\.blocks\.(\d+)\.', parameter_name)
        stem = re.match(r'backbone\.(patch_embed|pos_embed|cls_token)', parameter_name)
        depth = int(block[1]) + 1 if block else 0 if stem else depths
        undecayed = (
            parameter.ndim == 1
            or parameter_name.endswith(('pos_embed', 'cls_token', 'rel_pos_bias_table'))
            or any(part in parameter_name for part in ('query_embed', 'query_feat', 'level_embed'))
        )
        expected[parameter_name] = (pytest.approx(layer_decay ** (depths - depth)), 0.0 if undecayed else 0.05)
    assert optimizer_table(cfg, model) == expected


def test_the_rate_rises_for_1500_iterations_and_falls_linearly():
    """The test runs a hundredth of the schedule."""
    cfg = load_recipe(PATHS[UPERNET])
    assert [(scheduler.begin, scheduler.end) for scheduler in cfg.param_scheduler] == [(0, 1500), (1500, 160_000)]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-4)
    schedulers = [
        PARAM_SCHEDULERS.build(
            dict(scheduler, begin=scheduler.begin // 100, end=scheduler.end // 100),
            default_args=dict(optimizer=optimizer),
        )
        for scheduler in cfg.param_scheduler
    ]
    rates = []
    for _ in range(1600):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    # in mmengine the rate is 0 in the last iteration, not after it
    falls_for = 1600 - 15 - 1
    expected = [1e-4 * (1e-6 + (1 - 1e-6) * t / 14) for t in range(15)]
    expected += [1e-4 * (1 - t / falls_for) for t in range(falls_for + 1)]
    assert rates == pytest.approx(expected, abs=1e-12)


@pytest.fixture(scope='module')
def data_roots(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp('data')
    return dict(ade20k=str(write_ade20k(root / 'ade')), cityscapes=str(write_cityscapes(root / 'cityscapes')))


def small(name: str, data_roots: dict):
    """A recipe with 16 channels, crops of 64 px and the data of this test."""
    arch, side = dict(embed_dims=16, num_layers=4, num_heads=2), 64
    cfg = shrink(
        load_recipe(PATHS[name]),
        **{
            'model.data_preprocessor.size': (side, side),
            'model.backbone.arch': arch,
            'model.backbone.img_size': side,
            'model.backbone.out_indices': -1 if 'segmenter' in name else (0, 1, 2, 3),
        },
    )
    cfg.model.decode_head.in_channels = 16 if 'segmenter' in name else [16] * 4
    if 'neck' in cfg.model:
        cfg.model.neck.embed_dims = 16
    if cfg.model.test_cfg.mode == 'slide':
        cfg.model.test_cfg.update(crop_size=(side, side), stride=(48, 48))
    SHRINK_HEAD[cfg.model.decode_head.type](cfg.model)
    long, short = (128, 64) if 'cityscapes' in name else (256, 64)
    cfg.tta_pipeline[-1].transforms[0] = [
        dict(type='Resize', scale=(int(long * r), int(short * r)), keep_ratio=True) for r in (0.5, 1.0)
    ]
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = data_roots['cityscapes' if 'cityscapes' in name else 'ade20k']
        for step in loader.dataset.pipeline:
            replace = dict(
                RandomCrop=dict(crop_size=(side, side)),
                RandomChoiceResize=dict(scales=[64, 96]),
                Resize=dict(scale=(long, short)),
                RandomResize=dict(scale=(long, short)),
            )
            step.update(replace.get(step.type, {}))
    return cfg


def _shrink_upernet(model) -> None:
    model.decode_head.channels = 16
    model.auxiliary_head.update(in_channels=16, channels=16)


def _shrink_mask2former(model) -> None:
    head = model.decode_head
    head.num_queries = 10
    head.pixel_decoder.encoder.num_layers = 1
    head.transformer_decoder.num_layers = 2
    head.train_cfg.num_points = 64


def _shrink_segmenter(model) -> None:
    model.decode_head.update(channels=16, embed_dims=16, num_heads=2)


SHRINK_HEAD = dict(
    UPerHead=_shrink_upernet, Mask2FormerHead=_shrink_mask2former, SegmenterMaskTransformerHead=_shrink_segmenter
)


def samples(cfg, split: str) -> list:
    with recipe_scope(cfg):
        dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
    return [dataset[0], dataset[1]]


@pytest.mark.slow
@pytest.mark.parametrize('name', [UPERNET, SEGMENTER, MASK2FORMER, CITYSCAPES])
def test_one_step_and_one_prediction(name, data_roots):
    cfg = small(name, data_roots)
    model = revert_sync_batchnorm(build_recipe(cfg))
    model.init_weights()
    optimizer = build_optimizer(cfg, model)
    logged = model.train().train_step(pseudo_collate(samples(cfg, 'train')), optimizer)
    assert all(torch.isfinite(value).all() for value in logged.values())
    # AdamW has a state for each parameter that got a gradient
    idle = [
        parameter_name
        for parameter_name, parameter in model.named_parameters()
        if parameter not in optimizer.optimizer.state
    ]
    assert idle == []
    originals = dict(ade20k=[(80, 96), (50, 260)], cityscapes=[(64, 128)] * 2)
    expected = originals['cityscapes' if 'cityscapes' in name else 'ade20k']
    for sample, size in zip(samples(cfg, 'test'), expected, strict=True):
        (result,) = model.eval().test_step(pseudo_collate([sample]))
        assert result.pred_sem_seg.data.shape == (1, *size)
        assert result.seg_logits.data.shape == (model.decode_head.num_classes, *size)


@pytest.mark.slow
def test_several_scales_are_averaged_by_the_ms_config(data_roots, tmp_path):
    """The model loads a checkpoint of the plain config; one scale gives the plain result."""
    single = small(UPERNET, data_roots)
    model = revert_sync_batchnorm(build_recipe(single))
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'weights.pth')
    cfg = load_recipe(PATHS[f'{UPERNET}-ms'])
    assert cfg.model.module == load_recipe(PATHS[UPERNET]).model
    assert cfg.test_dataloader.dataset.pipeline == cfg.tta_pipeline
    scales, flips = cfg.tta_pipeline[-1].transforms[:2]
    assert [step.scale for step in scales] == [
        (1024, 256),
        (1536, 384),
        (2048, 512),
        (2560, 640),
        (3072, 768),
        (3584, 896),
    ]
    assert [step.prob for step in flips] == [0.0, 1.0]

    cfg.model.module = single.model
    cfg.test_dataloader = single.test_dataloader
    cfg.test_dataloader.dataset.pipeline = single.tta_pipeline
    cfg.update(
        work_dir=str(tmp_path),
        load_from=str(tmp_path / 'weights.pth'),
        experiment_name='ms',
        custom_hooks=[dict(type='addp_mm.PreflightHook', testing=True)],
    )
    with recipe_scope(cfg):
        runner = Runner.from_cfg(cfg)
        assert 'mIoU' in runner.test()
    assert all(
        torch.equal(value, model.state_dict()[name].to(value))
        for name, value in runner.model.module.state_dict().items()
    )

    (sample, _) = samples(cfg, 'test')
    assert len(sample['inputs']) == 4
    (merged,) = runner.model.eval().test_step(pseudo_collate([sample]))
    parts = [
        model.eval().test_step(dict(inputs=[image], data_samples=[data]))[0]
        for image, data in zip(sample['inputs'], sample['data_samples'], strict=True)
    ]
    mean = torch.stack([part.seg_logits.data.softmax(dim=0) for part in parts]).mean(dim=0)
    assert torch.equal(merged.pred_sem_seg.data.squeeze(0), mean.argmax(dim=0))


def test_readme_and_index_name_every_recipe():
    assert undocumented('seg') == []
