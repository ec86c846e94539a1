# Copyright (c) addp_mm contributors. Apache-2.0.
"""The full-size classification configs: models, optimizers, and one step of each family."""

import copy
import functools
import math
import re

import pytest
import torch
from helpers.recipes import (
    CONFIGS,
    build_on_meta,
    build_optimizer,
    build_recipe,
    load_recipe,
    optimizer_table,
    recipe_paths,
    recipe_scope,
    shrink,
    train_step,
    undocumented,
)

from addp_mm.checks.unknown_arguments import check_config

# VOLO has other heads and recipes: tests/configs/test_volo_cls_recipes.py
PATHS = [path for path in recipe_paths('cls') if not path.stem.startswith('volo-')]
load = functools.cache(load_recipe)  # shared by the tests, which do not change them
FINETUNE, LINEAR, KNN = ([path for path in PATHS if f'_{kind}' in path.stem] for kind in ('ft_', 'linear-', 'knn-'))
FT_END, PROBE_END = '8xb128-bf16-coslr-100e_in1k-256px.py', '8xb2048-bf16-coslr-90e_in1k-256px.py'
BASELINES = ('mae-vit-base-p16', 'beitv2-vit-base-p16', 'deit3-vit-base-p16', 'augreg-vit-base-p16')
ADDRESSES = {
    'addp-vit-base-p16': 'hf://Changyao/ADDP/addp-vit-base-16.pth',
    'addp-vit-large-p16': 'hf://Changyao/ADDP/addp-vit-large-16.pth',
    'mae-vit-base-p16': 'https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth',
    'beitv2-vit-base-p16': 'https://github.com/addf400/files/releases/download/BEiT-v2/beitv2_base_patch16_224_pt1k.pth',
    'deit3-vit-base-p16': 'https://dl.fbaipublicfiles.com/deit/deit_3_base_224_1k.pth',
    'augreg-vit-base-p16': 'hf://timm/vit_base_patch16_224.augreg_in21k/model.safetensors',
    'dinov2-vit-base-p14': 'https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth',
    'resnet50': 'torchvision://resnet50',
}


def parts(path) -> tuple[str, str]:
    """Backbone and setting of a name."""
    return tuple(path.stem.split('_')[:2])


def small(path) -> tuple:
    """Return the config at a small size, with 10 classes, and the image side.

    A ViT has two narrow blocks and 2 x 2 patches. A ResNet keeps its depth, with 64 px.
    """
    cfg = load(path)
    options = (
        {}
        if 'head' not in cfg.model
        else {'model.head.num_classes': 10, 'data_preprocessor.num_classes': 10, 'optim_wrapper.accumulative_counts': 1}
    )
    if cfg.model.backbone.type == 'addp_mm.ADDPViT':
        patch = cfg.model.backbone.patch_size
        options |= {
            'model.backbone.arch': dict(embed_dims=8, num_layers=2, num_heads=2),
            'model.backbone.img_size': 2 * patch,
        }
        options |= {'model.head.in_channels': 8} if 'head' in cfg.model else {}
        if cfg.model.backbone.get('frozen_stages'):
            options['model.backbone.frozen_stages'] = 2
        if cfg.model.get('neck'):
            options['model.neck.input_features'] = 8
        return shrink(cfg, **options), 2 * patch
    options |= {'model.backbone.stem_channels': 8, 'model.backbone.base_channels': 8}
    options |= {'model.head.in_channels': 256} if 'head' in cfg.model else {}
    return shrink(cfg, **options), 64


def batch(size: int) -> dict:
    from mmpretrain.structures import DataSample

    images = torch.randint(0, 256, (4, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=[DataSample().set_gt_label(i) for i in range(4)])


@pytest.mark.parametrize('path', PATHS, ids=lambda path: path.stem)
def test_names_agree_with_the_configs(path):
    cfg = load(path)
    backbone, setting = parts(path)
    needed = (
        ('test_dataloader', 'test_cfg', 'test_evaluator')
        if setting.startswith('knn')
        else ('train_dataloader', 'train_cfg', 'optim_wrapper', 'val_dataloader')
    )
    check_config(cfg, needed=('model', *needed))
    assert cfg.model.backbone.init_cfg.checkpoint == ADDRESSES[backbone]
    if backbone != 'resnet50':
        arch, patch = re.search(r'vit-(\w+)-p(\d+)', backbone).groups()
        out_type = 'cls_token' if setting.endswith('cls') else 'avg_featmap'
        assert (cfg.model.backbone.arch, cfg.model.backbone.patch_size, cfg.model.backbone.out_type) == (
            arch,
            int(patch),
            out_type,
        )
        # frozen ADDP keeps the norm of pre-training; published fine-tuning has no such norm
        frozen_addp = backbone.startswith('addp') and setting != 'ft'
        assert cfg.model.backbone.get('pre_norm', False) is frozen_addp
    size = int(re.search(r'in1k-(\d+)px$', path.stem)[1])
    assert cfg.model.backbone.get('img_size', size) == size
    loaders = [cfg.test_dataloader] + [cfg[key] for key in ('train_dataloader', 'val_dataloader') if cfg.get(key)]
    for loader in loaders:
        steps = {step.type: step for step in loader.dataset.pipeline}
        crop = steps['RandomResizedCrop'].scale if 'RandomResizedCrop' in steps else steps['CenterCrop'].crop_size
        assert crop == size
        assert steps.get('ResizeEdge', dict(scale=size))['scale'] == size
    mean = 127.5 if backbone.startswith('augreg') else 123.675
    assert cfg.data_preprocessor.mean[0] == mean
    if setting.startswith('knn'):
        assert cfg.test_cfg.bank_dataloader.dataset.split == 'train'
        assert cfg.test_dataloader.dataset.split == 'val'
        assert cfg.test_cfg.bank_dataloader.dataset.pipeline == cfg.test_dataloader.dataset.pipeline
        return
    gpus, images, accum, precision, epochs = re.search(
        r'_(\d+)xb(\d+)(?:-accum(\d+))?-(\w+)-coslr-(\d+)e_', path.stem
    ).groups()
    assert cfg.train_dataloader.batch_size == int(images)
    assert cfg.optim_wrapper.get('accumulative_counts', 1) == int(accum or 1)
    assert int(gpus) * int(images) * int(accum or 1) == cfg.auto_scale_lr.base_batch_size
    assert (precision, cfg.optim_wrapper.dtype) == ('bf16', 'bfloat16')
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].end == int(epochs)


def changed(path, other) -> set:
    """Top-level keys at which two configs differ."""
    one, two = load(path).to_dict(), load(other).to_dict()
    return {key for key in {*one, *two} if one.get(key) != two.get(key)} - {'baseline'}


@pytest.mark.parametrize('backbone', [*BASELINES, 'resnet50'])
def test_baselines_differ_from_addp_only_in_the_model(backbone):
    own = {path for path in PATHS if path.stem.startswith(backbone)}
    assert len(own) == 3
    for path in own:
        other = path.with_name(path.name.replace(backbone, 'addp-vit-base-p16', 1))
        allowed = {'model', 'data_preprocessor'} if backbone.startswith('augreg') else {'model'}
        assert changed(path, other) <= allowed
        mine, theirs = load(path).model, load(other).model
        assert {k: v for k, v in mine.items() if k not in ('backbone', 'neck', 'head')} == {
            k: v for k, v in theirs.items() if k not in ('backbone', 'neck', 'head')
        }


def depth_by_hand(name: str, blocks: int) -> int:
    """Depth of a weight: 0 the embedding, then the blocks, then the final norm and the head."""
    block = re.match(r'backbone\.blocks\.(\d+)\.', name)
    if block:
        return int(block[1]) + 1
    return 0 if re.match(r'backbone\.(cls_token|pos_embed|patch_embed)', name) else blocks + 1


@pytest.mark.parametrize('path', [p for p in FINETUNE if 'resnet' not in p.stem], ids=lambda path: path.stem)
def test_rates_and_decays_of_finetuning(path):
    cfg = load(path)
    model = build_on_meta(cfg)
    blocks, rate, lr, drop_path = (24, 0.8, 1e-3, 0.2) if 'large' in path.stem else (12, 0.65, 4e-3, 0.1)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(lr)
    assert model.backbone.blocks[-1].drop_path.drop_prob == pytest.approx(drop_path)
    expected = {}
    for name in dict(model.named_parameters()):
        free = 'norm' in name or name.endswith(('.bias', 'cls_token', 'pos_embed', 'gamma', 'rel_pos_bias_table'))
        expected[name] = (rate ** (blocks + 1 - depth_by_hand(name, blocks)), 0.0 if free else 0.05)
    table = optimizer_table(cfg, model)
    assert table == {name: pytest.approx(value) for name, value in expected.items()}
    assert len({round(share, 12) for share, _ in table.values()}) == blocks + 2
    assert table['head.fc.weight'] == (1.0, 0.05)
    assert table['backbone.patch_embed.projection.weight'][0] < 0.06


def test_rates_of_resnet_grow_with_depth():
    (path,) = (p for p in FINETUNE if 'resnet' in p.stem)
    cfg = load(path)
    table = optimizer_table(cfg, build_on_meta(cfg))
    names = ['backbone.conv1', *(f'backbone.layer{i}.0.conv1' for i in (1, 2, 3, 4)), 'head.fc']
    shares = [table[f'{name}.weight'][0] for name in names]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert shares[0] < 0.1
    assert table['backbone.layer1.0.bn1.weight'][1] == table['head.fc.bias'][1] == 0
    assert table['backbone.layer1.0.conv1.weight'][1] == 0.05


@pytest.mark.parametrize('path', LINEAR, ids=lambda path: path.stem)
def test_only_the_head_is_trained_in_linear_probes(path):
    cfg = load(path)
    model = build_on_meta(cfg)
    assert optimizer_table(cfg, model) == {'head.fc.weight': (1.0, 0.0), 'head.fc.bias': (1.0, 0.0)}
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(6.4)
    if 'resnet' not in path.stem:
        bn = model.neck.bn
        assert not bn.affine
        assert bn.num_features == model.backbone.embed_dims == model.head.in_channels
    assert not any(
        module.training
        for module in model.train().backbone.modules()
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.LayerNorm))
    )


def test_lars_adapts_the_weight_and_not_the_bias():
    cfg, _ = small(LINEAR[0])
    model = build_recipe(cfg)
    excluded = {
        id(p): group.get('lars_exclude', False)
        for group in build_optimizer(cfg, model).optimizer.param_groups
        for p in group['params']
    }
    assert excluded[id(model.head.fc.bias)]
    assert not excluded[id(model.head.fc.weight)]


def rate_by_hand(epoch: float, warm_up: int, epochs: int, peak: float, least: float) -> float:
    if epoch < warm_up:
        return peak * epoch / warm_up
    return least + (peak - least) / 2 * (1 + math.cos(math.pi * (epoch - warm_up) / (epochs - warm_up)))


@pytest.mark.parametrize(
    'name, warm_up, epochs, peak, least',
    [
        (f'addp-vit-base-p16_ft_{FT_END}', 20, 100, 4e-3, 1e-6),
        ('addp-vit-large-p16_ft_8xb64-accum2-bf16-coslr-50e_in1k-256px.py', 5, 50, 1e-3, 1e-6),
        (f'addp-vit-base-p16_linear-cls_{PROBE_END}', 10, 90, 6.4, 0.0),
    ],
)
def test_rates_over_the_training(name, warm_up, epochs, peak, least):
    """Learning rate of every group by iteration, 10 an epoch. mmengine's warm-up starts above 0."""
    from mmengine.registry import PARAM_SCHEDULERS

    cfg, _ = small(CONFIGS / 'cls' / name)
    wrapper = build_optimizer(cfg, build_recipe(cfg))
    with recipe_scope(cfg):
        schedulers = [
            PARAM_SCHEDULERS.build(copy.deepcopy(scheduler), default_args=dict(optimizer=wrapper, epoch_length=10))
            for scheduler in cfg.param_scheduler
        ]
    groups = wrapper.optimizer.param_groups
    for iteration in range(10 * epochs):
        by_hand = rate_by_hand(iteration / 10, warm_up, epochs, peak, least)
        for group in groups:
            assert group['lr'] == pytest.approx(by_hand * group.get('lr_scale', 1), rel=0.03, abs=5e-3 * peak)
        for scheduler in schedulers:
            scheduler.step()
    for group in groups:
        assert group['lr'] == pytest.approx(least * group.get('lr_scale', 1), rel=0.1, abs=1e-5 * peak)


# The other configs have the same layers: MAE and AugReg those of ADDP, large models those of base
# models.
BUILT = [path for path in FINETUNE + LINEAR if not re.match('mae|augreg|.*-large', path.stem)]


@pytest.mark.parametrize('path', BUILT, ids=lambda path: path.stem)
def test_a_step_of_training_and_of_prediction(path):
    cfg, size = small(path)
    model = build_recipe(cfg)
    model.init_weights()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with recipe_scope(cfg):
        losses = train_step(cfg, model, batch(size))
        assert 1 < losses['loss'] < 4
        with torch.no_grad():
            predictions = model.eval().test_step(batch(size))
    trained = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    if parts(path)[1] == 'ft':
        assert {'head.fc.weight', next(iter(before))} <= trained
    else:
        assert trained == {'head.fc.weight', 'head.fc.bias'}
    assert predictions[0].pred_score.shape == (10,)
    assert predictions[0].pred_score.sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize('path', KNN, ids=lambda path: path.stem)
def test_features_for_knn(path):
    cfg, size = small(path)
    model = build_recipe(cfg).eval()
    with torch.no_grad():
        (features,) = model.extract_feat(model.data_preprocessor(batch(size), False)['inputs'])
    assert features.shape == (4, 256 if 'resnet' in path.stem else 8)
    assert not model.with_head


def test_readme_and_metafile_name_every_recipe():
    assert undocumented('cls') == []
