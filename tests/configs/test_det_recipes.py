# Copyright (c) addp_mm contributors. Apache-2.0.
"""Detection recipes: the values of their papers; training and prediction at a small size."""

import copy
from functools import cache

import pytest
import torch
import yaml
from helpers.recipes import (
    CONFIGS,
    build_on_meta,
    build_recipe,
    load_recipe,
    optimizer_table,
    recipe_paths,
    shrink,
    train_step,
)
from helpers.tiny_detection import detection_batch
from torch import nn

# Share of the learning rate of patch embedding, first and last block: 0.7 to the power of 13, 12
# and 1 for ViT-B's 12 blocks, 0.8 to the power of 25, 24 and 1 for ViT-L's 24 (detectron2's
# get_vit_lr_decay_rate).
BASE = dict(blocks=12, width=768, global_blocks=(2, 5, 8, 11), drop_path=0.1, shares=(0.009688901, 0.013841287, 0.7))
LARGE = dict(
    blocks=24, width=1024, global_blocks=(5, 11, 17, 23), drop_path=0.4, shares=(0.003777893, 0.004722366, 0.8)
)
# Name of the recipe up to its schedule: size of the ViT, weight decay, images per GPU.
RECIPES = {
    'mask-rcnn_addp-vit-base-p16_vitdet_16xb4-bf16-100e_coco-1024px': (BASE, 0.1, 4),
    'mask-rcnn_addp-vit-base-p16_vitdet_16xb4-bf16-25e_coco-1024px': (BASE, 0.1, 4),
    'mask-rcnn_addp-vit-large-p16_vitdet_32xb2-bf16-100e_coco-1024px': (LARGE, 0.1, 2),
    'mask-rcnn_addp-vit-large-p16_vitdet_32xb2-bf16-25e_coco-1024px': (LARGE, 0.1, 2),
    'cascade-mask-rcnn_addp-vit-base-p16_vitdet_16xb4-bf16-100e_coco-1024px': (BASE, 0.1, 4),
    'cascade-mask-rcnn_addp-vit-base-p16_vitdet_16xb4-bf16-25e_coco-1024px': (BASE, 0.1, 4),
    'cascade-mask-rcnn_addp-vit-large-p16_vitdet_32xb2-bf16-100e_coco-1024px': (LARGE, 0.1, 2),
    'cascade-mask-rcnn_addp-vit-large-p16_vitdet_32xb2-bf16-25e_coco-1024px': (LARGE, 0.1, 2),
    'mask-rcnn_addp-vit-base-p16_fpn_8xb2-bf16-1x_coco': (BASE, 0.05, 2),
    'mask-rcnn_addp-vit-base-p16_fpn_8xb2-bf16-ms-crop-3x_coco': (BASE, 0.05, 2),
    'mask-rcnn_addp-vit-large-p16_fpn_8xb2-bf16-1x_coco': (LARGE, 0.05, 2),
    'mask-rcnn_addp-vit-large-p16_fpn_8xb2-bf16-ms-crop-3x_coco': (LARGE, 0.05, 2),
    'retinanet_addp-vit-base-p16_8xb2-bf16-1x_coco': (BASE, 0.05, 2),
    'retinanet_addp-vit-large-p16_8xb2-bf16-1x_coco': (LARGE, 0.05, 2),
    'dino-4scale_addp-vit-base-p16_8xb2-fp32-12e_coco': (BASE, 1e-4, 2),
    'dino-4scale_addp-vit-large-p16_8xb2-fp32-12e_coco': (LARGE, 1e-4, 2),
}
BASELINES = {
    'mae-vit-base-p16': ('mae_pretrain_vit_base.pth', {}),
    'beitv2-vit-base-p16': (
        'beitv2_base_patch16_224_pt1k.pth',
        dict(use_abs_pos=False, use_rel_pos=False, use_rel_pos_table=True, layer_scale_init=0.1),
    ),
    'deit3-vit-base-p16': ('deit_3_base_224_1k.pth', dict(layer_scale_init=1e-6)),
    'dinov2-vit-base-p14': ('dinov2_vitb14_pretrain.pth', dict(img_size=896, patch_size=14, layer_scale_init=1e-5)),
}
HEADS = (
    'mask-rcnn_{}_vitdet_16xb4-bf16-100e',
    'mask-rcnn_{}_vitdet_16xb4-bf16-25e',
    'cascade-mask-rcnn_{}_vitdet_16xb4-bf16-100e',
    'cascade-mask-rcnn_{}_vitdet_16xb4-bf16-25e',
    'mask-rcnn_{}_fpn_8xb2-bf16-1x',
    'mask-rcnn_{}_fpn_8xb2-bf16-ms-crop-3x',
    'retinanet_{}',
    'dino-4scale_{}',
)


@cache
def _loaded(stem: str):
    return load_recipe(f'det/{stem}.py')


def load(stem: str):
    """A config. It is cached because reading it takes up to a second."""
    return copy.deepcopy(_loaded(stem))


def test_every_recipe_is_in_a_table_of_this_file():
    stems = {path.stem for path in recipe_paths('det')}
    baselines = {one for one in stems for head in HEADS for name in BASELINES if one.startswith(head.format(name))}
    resnets = {one for one in stems if '_r50_' in one}
    volos = {one for one in stems if '_volo-' in one}  # in test_volo_recipes.py
    assert len(baselines) == len(HEADS) * len(BASELINES)
    assert len(resnets) == 7
    assert stems == set(RECIPES) | baselines | resnets | volos


def test_readme_and_metafile_name_every_recipe():
    folder = CONFIGS / 'det'
    readme = (folder / 'README.md').read_text()
    models = yaml.safe_load((folder / 'metafile.yml').read_text())['Models']
    stems = {path.stem for path in recipe_paths('det')}
    assert {one for one in stems if f'({one}.py)' not in readme} == set()
    assert stems <= {model['Name'] for model in models}
    assert all(model['Config'] == f'configs/det/{model["Name"]}.py' for model in models)


def expected_settings(name: str, model: nn.Module, size: dict, weight_decay: float, is_dino: bool):
    """Share of the learning rate, and weight decay, in ViTDet's or DINO's recipe."""
    decay = {12: 0.7, 24: 0.8}[size['blocks']]
    if is_dino:
        return (0.1 if name.startswith('backbone.') else 1.0), weight_decay
    vector = model.get_parameter(name).ndim == 1
    weight_decay = 0.0 if vector or name == 'backbone.pos_embed' else weight_decay
    if name.startswith(('backbone.patch_embed.', 'backbone.pos_embed')):
        return decay ** (size['blocks'] + 1), weight_decay
    if name.startswith('backbone.blocks.'):
        return decay ** (size['blocks'] - int(name.split('.')[2])), weight_decay
    return 1.0, weight_decay


@pytest.mark.parametrize('stem', RECIPES)
def test_recipe_at_full_size(stem):
    size, weight_decay, batch_size = RECIPES[stem]
    cfg = load(stem)
    assert cfg.train_dataloader.batch_size == batch_size
    assert cfg.auto_scale_lr.base_batch_size == (64 if 'vitdet' in stem else 16)
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.optim_wrapper.optimizer.lr == 1e-4
    assert cfg.optim_wrapper.type == ('OptimWrapper' if 'dino' in stem else 'AmpOptimWrapper')
    assert 'dino' in stem or not cfg.optim_wrapper.loss_scale.enabled
    assert cfg.model.backbone.drop_path_rate == size['drop_path']
    assert 'addp-vit-' + ('base' if size is BASE else 'large') in cfg.model.backbone.init_cfg.checkpoint

    model = build_on_meta(cfg)
    windows = [block.window_size for block in model.backbone.blocks]
    assert windows == [0 if i in size['global_blocks'] else 14 for i in range(size['blocks'])]
    assert all(block.attn.use_rel_pos for block in model.backbone.blocks)
    assert model.backbone.embed_dims == size['width']
    assert model.backbone.pos_embed.shape[1] == 64 * 64
    assert model.backbone.with_cp
    table = optimizer_table(cfg, model)
    assert set(table) == {name for name, _ in model.named_parameters()}
    for name, settings in table.items():
        assert settings == pytest.approx(expected_settings(name, model, size, weight_decay, 'dino' in stem)), name
    if 'dino' not in stem:
        last = size['blocks'] - 1
        names = ('patch_embed.projection.weight', 'blocks.0.attn.qkv.weight', f'blocks.{last}.attn.qkv.weight')
        assert [table[f'backbone.{name}'][0] for name in names] == pytest.approx(size['shares'], rel=1e-5)


def test_heads_of_vitdet():
    models = [
        load(f'{name}_addp-vit-base-p16_vitdet_16xb4-bf16-100e_coco-1024px').model
        for name in ('mask-rcnn', 'cascade-mask-rcnn')
    ]
    box_heads = [models[0].roi_head.bbox_head, *models[1].roi_head.bbox_head]
    for head in [*box_heads, *(model.roi_head.mask_head for model in models)]:
        assert head.norm_cfg.type == 'addp_mm.LN2d'
    assert len(box_heads) == 4
    assert {head.type for head in box_heads} == {'Shared4Conv1FCBBoxHead'}
    assert [head.bbox_coder.target_stds[0] for head in box_heads] == [0.1, 0.1, 0.05, 0.033]
    assert all(model.rpn_head.num_convs == 2 for model in models)
    assert all(model.data_preprocessor.pad_size_divisor == 1024 for model in models)


@pytest.mark.parametrize(
    'schedule, decades',
    [
        ('vitdet_16xb4-bf16-100e_coco-1024px', (163889, 177546, 184375)),
        ('vitdet_16xb4-bf16-25e_coco-1024px', (40972, 44386, 46094)),
    ],
)
def test_learning_rate_by_iteration(schedule, decades):
    cfg = load(f'mask-rcnn_addp-vit-base-p16_{schedule}')
    assert cfg.train_cfg.max_iters == decades[2]
    assert decades[2] % cfg.train_cfg.val_interval == 0
    optimizer, (warmup, steps) = schedulers(cfg)
    assert rate(optimizer) == pytest.approx(1e-4 * 0.001)
    advance(warmup, 125)
    assert rate(optimizer) == pytest.approx(1e-4 * (0.001 + 0.999 * 125 / 249), rel=1e-6)
    advance(warmup, 125)
    assert rate(optimizer) == pytest.approx(1e-4)
    for milestone, before in zip(decades, (1e-4, 1e-5), strict=False):
        steps.last_step = milestone - 2
        advance(steps, 1)
        assert rate(optimizer) == pytest.approx(before)
        advance(steps, 1)
        assert rate(optimizer) == pytest.approx(before / 10)


@pytest.mark.parametrize(
    'stem, milestones, epochs',
    [
        ('mask-rcnn_addp-vit-base-p16_fpn_8xb2-bf16-1x_coco', (8, 11), 12),
        ('mask-rcnn_addp-vit-base-p16_fpn_8xb2-bf16-ms-crop-3x_coco', (27, 33), 36),
        ('retinanet_addp-vit-base-p16_8xb2-bf16-1x_coco', (8, 11), 12),
        ('dino-4scale_addp-vit-base-p16_8xb2-fp32-12e_coco', (11, 12), 12),
    ],
)
def test_learning_rate_by_epoch(stem, milestones, epochs):
    cfg = load(stem)
    assert cfg.train_cfg.max_epochs == epochs
    optimizer, (*warmup, steps) = schedulers(cfg)
    for scheduler in warmup:
        assert rate(optimizer) == pytest.approx(1e-7)
        advance(scheduler, 1000)
    seen = []
    for _ in range(epochs):
        seen.append(rate(optimizer))
        advance(steps, 1)
    first, second = milestones
    assert seen == pytest.approx([1e-4] * first + [1e-5] * (second - first) + [1e-6] * (epochs - second))


def schedulers(cfg):
    from mmengine.registry import PARAM_SCHEDULERS

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    return optimizer, [PARAM_SCHEDULERS.build(dict(one, optimizer=optimizer)) for one in cfg.param_scheduler]


def rate(optimizer) -> float:
    return optimizer.param_groups[0]['lr']


def advance(scheduler, steps: int) -> None:
    for _ in range(steps):
        scheduler.step()


@pytest.mark.parametrize('baseline', BASELINES)
def test_baselines_change_only_the_backbone(baseline):
    checkpoint, options = BASELINES[baseline]
    for head in HEADS:
        (path,) = recipe_paths('det', head.format(baseline) + '_*')
        parent = load(next(stem for stem in RECIPES if stem.startswith(head.format('addp-vit-base-p16'))))
        cfg = load(path.stem)
        assert cfg.model.backbone.pop('init_cfg').checkpoint.endswith(checkpoint)
        parent.model.backbone.pop('init_cfg')
        assert cfg.model.backbone == {**parent.model.backbone, **options}
        assert cfg.optim_wrapper == parent.optim_wrapper
        assert cfg.param_scheduler == parent.param_scheduler
        assert cfg.train_cfg == parent.train_cfg
        if 'p14' not in baseline:
            assert {**cfg.model, 'backbone': None} == {**parent.model, 'backbone': None}
        elif 'dino-' not in head:
            strides = str(cfg.model)
            assert '3.5' in strides or '[7, 14, 28, 56, 112]' in strides
    assert build_on_meta(load(path.stem)).backbone.patch_size == cfg.model.backbone.patch_size


@pytest.mark.parametrize('path', recipe_paths('det', '*_r50_*'), ids=lambda path: path.stem)
def test_resnet_baselines_are_mmdets(path):
    cfg = load(path.stem)
    assert cfg.model.backbone.init_cfg.checkpoint == 'torchvision://resnet50'
    assert build_on_meta(cfg).backbone.depth == 50
    if '_lsj-' in path.stem:  # mmdet's 100 epochs: 25 passes over a list that has every image four times
        assert cfg.train_cfg.max_epochs * cfg.train_dataloader.dataset.times == (25 if '25e' in path.stem else 100)


SIZES = ((64, 96),)
SMALL = {
    'model.backbone.arch': dict(embed_dims=32, num_layers=12, num_heads=2),
    'model.backbone.img_size': 128,
    'model.backbone.window_size': 3,
}
FEW_PROPOSALS = {
    'model.train_cfg.rpn_proposal.max_per_img': 30,
    'model.test_cfg.rpn.max_per_img': 20,
    'model.test_cfg.rcnn.score_thr': 0.0,
}
FAMILIES = {
    'mask-rcnn_addp-vit-base-p16_vitdet_16xb4-bf16-100e_coco-1024px': {
        'model.neck.in_channels': 32,
        'model.data_preprocessor.pad_size_divisor': 128,
        'model.train_cfg.rcnn.sampler.num': 16,
        **FEW_PROPOSALS,
    },
    'cascade-mask-rcnn_addp-vit-base-p16_vitdet_16xb4-bf16-25e_coco-1024px': {
        'model.neck.in_channels': 32,
        'model.data_preprocessor.pad_size_divisor': 128,
        **{f'model.train_cfg.rcnn.{i}.sampler.num': 16 for i in range(3)},
        **FEW_PROPOSALS,
    },
    'mask-rcnn_addp-vit-base-p16_fpn_8xb2-bf16-1x_coco': {
        'model.neck.0.embed_dims': 32,
        'model.neck.1.in_channels': [32, 32, 32, 32],
        'model.train_cfg.rcnn.sampler.num': 16,
        **FEW_PROPOSALS,
    },
    'retinanet_addp-vit-base-p16_8xb2-bf16-1x_coco': {
        'model.neck.in_channels': 32,
        'model.test_cfg.score_thr': 0.0,
        'model.test_cfg.max_per_img': 20,
    },
    'dino-4scale_addp-vit-base-p16_8xb2-fp32-12e_coco': {
        'model.neck.in_channels': 32,
        'model.num_queries': 20,
        'model.test_cfg.max_per_img': 20,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize('stem', FAMILIES)
def test_family_trains_and_predicts(stem):
    cfg = shrink(load(stem), **SMALL, **FAMILIES[stem])
    if 'retinanet' not in stem:  # bfloat16 is slow on most CPUs: only one family uses it here
        cfg.optim_wrapper.type = 'OptimWrapper'
        cfg.optim_wrapper.pop('dtype', None)
        cfg.optim_wrapper.pop('loss_scale', None)
    model = build_recipe(cfg)
    model.init_weights()
    before = model.backbone.blocks[0].attn.qkv.weight.detach().clone()
    logged = train_step(cfg, model, detection_batch(SIZES))
    assert logged['loss'].isfinite()
    assert ('loss_mask' in logged or 's0.loss_mask' in logged) == ('mask' in stem)
    assert not torch.equal(model.backbone.blocks[0].attn.qkv.weight, before)
    model.eval()
    with torch.no_grad():
        results = model.test_step(detection_batch(SIZES))
    for result in results:
        found = result.pred_instances
        assert 0 < len(found) <= 100
        assert found.bboxes.isfinite().all()
        assert found.scores.isfinite().all()
        assert ('masks' in found) == ('mask' in stem)
