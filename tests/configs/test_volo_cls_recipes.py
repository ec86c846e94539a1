# Copyright (c) addp_mm contributors. Apache-2.0.
"""VOLO's classification recipes: published settings, weights, and one step of each family."""

import functools
import re

import pytest
import torch
from helpers.recipes import (
    CONFIGS,
    build_recipe,
    load_recipe,
    optimizer_table,
    recipe_paths,
    recipe_scope,
    shrink,
    train_step,
)

from addp_mm.checks.unknown_arguments import check_config
from addp_mm.layouts.volo import to_published
from addp_mm.models.pretrained import Pretrained

PATHS = recipe_paths('cls', 'volo-*.py')
NANO = CONFIGS / 'cls/volo-nano_token-label_1xb32-fp32-300i_fashion-scenes-64px.py'
load = functools.cache(load_recipe)  # shared by the tests, which do not change them
# arXiv 2106.13112, table 2, and sail-sg/volo, README.md: million parameters, drop path, learning
# rate at batch 1024, size of fine-tuning
PUBLISHED = {
    'd1': (26.6, 0.1, 1.6e-3, 384),
    'd2': (58.7, 0.2, 1e-3, 384),
    'd3': (86.3, 0.5, 1e-3, 448),
    'd4': (193, 0.5, 1e-3, 448),
    'd5': (295.5, 0.75, 8e-4, 512),
}
TINY = dict(layers=(1, 1, 1, 1), embed_dims=(8, 16), num_heads=(1, 2), stem_channels=8)


def parts(path) -> tuple[str, str]:
    """Architecture and setting of a name."""
    arch, setting = re.match(r'volo-(d\d)_([\w-]+?)_', path.stem).groups()
    return arch, setting


def tiny(cfg, size: int = 32):
    """The config with a tiny VOLO of 2 x 2 tokens and 10 classes."""
    return shrink(
        cfg,
        **{
            'model.backbone.arch': TINY,
            'model.backbone.img_size': size,
            'model.head.num_classes': 10,
            'model.head.in_channels': 16,
            'data_preprocessor.num_classes': 10,
            'optim_wrapper.accumulative_counts': 1,
        },
    )


def batch(num_tokens: int, token_labels: bool, size: int = 32) -> dict:
    from mmpretrain.structures import DataSample

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, size, size), generator=generator, dtype=torch.uint8)
    samples = [DataSample().set_gt_label(i) for i in range(4)]
    for sample in samples if token_labels else ():
        sample.token_labels = torch.randn(10, 1 + num_tokens, generator=generator).softmax(0)
    return dict(inputs=list(images), data_samples=samples)


def test_there_are_the_recipes_of_the_paper():
    named = [parts(path) for path in PATHS]
    assert sorted(arch for arch, setting in named if setting == 'token-label') == list(PUBLISHED)
    assert sorted(arch for arch, setting in named if setting == 'ft') == list(PUBLISHED)
    assert [arch for arch, setting in named if setting == 'image-label'] == ['d1']


@pytest.mark.parametrize('path', PATHS, ids=lambda path: path.stem)
def test_names_and_published_values_agree_with_the_configs(path):
    cfg, (arch, setting) = load(path), parts(path)
    check_config(cfg, needed=('model', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'val_dataloader'))
    _, drop_path, lr, large = PUBLISHED[arch]
    size = int(re.search(r'in1k-(\d+)px$', path.stem)[1])
    backbone, wrapper = cfg.model.backbone, cfg.optim_wrapper
    assert (backbone.arch, backbone.img_size, backbone.drop_path_rate) == (arch, size, drop_path)
    assert size == (large if setting == 'ft' else 224)
    assert wrapper.optimizer.lr == pytest.approx(8e-6 if setting == 'ft' else lr)
    assert wrapper.optimizer.weight_decay == (1e-8 if setting == 'ft' else 0.05)
    assert cfg.model.head.loss.with_ground_truth is (setting == 'ft')
    assert backbone.mix_token
    assert 'augments' not in (cfg.model.get('train_cfg') or {})  # no Mixup, no CutMix
    warm_up, cosine = cfg.param_scheduler
    epochs, first, least = (30, 5, 4e-6) if setting == 'ft' else (300, 20, 1e-5)
    assert (warm_up.end, cosine.begin, cosine.end, cfg.train_cfg.max_epochs) == (first, first, epochs, epochs)
    assert cosine.eta_min == least
    assert f'coslr-{epochs}e_' in path.stem


@pytest.mark.parametrize('path', [p for p in PATHS if parts(p)[1] == 'token-label'], ids=lambda path: path.stem)
def test_models_have_the_published_size(path):
    with torch.device('meta'):
        model = build_recipe(load(path))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count / 1e6 == pytest.approx(PUBLISHED[parts(path)[0]][0], abs=0.05)


@pytest.mark.parametrize('path', PATHS, ids=lambda path: path.stem)
def test_images_of_training_and_test_have_the_size_of_the_name(path):
    cfg, (_, setting) = load(path), parts(path)
    size = cfg.model.backbone.img_size
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert ('addp_mm.WithTokenLabels' in steps) == (setting != 'image-label')
    if setting != 'image-label':
        step = steps['addp_mm.WithTokenLabels']
        assert step.num_classes == cfg.model.head.num_classes
        assert step.get('patch_size', 16) == 16
        assert steps['PackInputs'].algorithm_keys == ['token_labels']
        steps = {inner.type: inner for inner in step.transforms}
    assert steps['RandomResizedCrop'].scale == size
    assert steps['RandAugment'].magnitude_level == 9
    assert steps['RandomErasing'].erase_prob == 0.25
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        test = {step.type: step for step in loader.dataset.pipeline}
        assert test['CenterCrop'].crop_size == size
        assert test['ResizeEdge'].scale == (round(224 / 0.96) if size == 224 else size)


@pytest.mark.parametrize('path', [p for p in PATHS if parts(p)[1] == 'ft'], ids=lambda path: path.stem)
def test_fine_tuning_starts_from_the_published_weights_of_224_px(path):
    cfg, (arch, _) = load(path), parts(path)
    init_cfg = cfg.model.init_cfg
    assert re.search(rf'sail-sg/volo/releases/download/volo_1/{arch}_224_8[456]\.\d+\.pth\.tar$', init_cfg.checkpoint)
    assert init_cfg.strict


def test_published_weights_load_at_a_larger_size(tmp_path):
    cfg = load(next(path for path in PATHS if parts(path) == ('d1', 'ft')))
    torch.manual_seed(0)
    small = build_recipe(tiny(cfg, 32))
    small.backbone.timm_model.pos_embed.data.fill_(0.25)
    torch.save(to_published(small.state_dict()), tmp_path / 'd1_224.pth.tar')
    large = build_recipe(tiny(cfg, 64))
    Pretrained(str(tmp_path / 'd1_224.pth.tar'), strict=True)(large)
    assert large.backbone.timm_model.pos_embed.shape == (1, 4, 4, 16)
    torch.testing.assert_close(large.backbone.timm_model.pos_embed.data, torch.full((1, 4, 4, 16), 0.25))
    assert torch.equal(large.head.aux_fc.weight, small.head.aux_fc.weight)


def test_weights_without_decay():
    cfg = tiny(load(next(path for path in PATHS if parts(path) == ('d1', 'token-label'))))
    table = optimizer_table(cfg, build_recipe(cfg))
    free = {name for name, (_, decay) in table.items() if decay == 0}
    assert {rate for rate, _ in table.values()} == {1.0}
    assert {name for name in table if name.endswith('.bias') or 'norm' in name} <= free
    assert {'backbone.timm_model.pos_embed', 'backbone.timm_model.cls_token'} <= free
    assert 'backbone.timm_model.patch_embed.conv.0.weight' not in free
    assert 'head.fc.weight' not in free


@pytest.mark.parametrize(
    'path', [NANO, *(p for p in PATHS if parts(p) in (('d1', 'image-label'), ('d1', 'ft')))], ids=lambda path: path.stem
)
def test_a_step_of_training_and_of_prediction(path):
    cfg = tiny(load(path), 32)
    model = build_recipe(cfg)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.manual_seed(0)
    with recipe_scope(cfg):
        losses = train_step(cfg, model, batch(4, token_labels='image-label' not in path.stem))
        with torch.no_grad():
            predictions = model.eval().test_step(batch(4, token_labels=False))
    assert losses['loss'].item() == pytest.approx(losses['loss_cls'].item() + losses['loss_token'].item())
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {'head.fc.weight', 'head.aux_fc.weight', 'backbone.timm_model.patch_embed.conv.0.weight'} <= changed
    assert predictions[0].pred_score.sum().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize('task, gpus', [('cls', '1xb32'), ('det', '1xb16'), ('seg', '1xb16')])
def test_nano_recipes_differ_from_the_vit_only_in_the_backbone(task, gpus):
    """And in the channels and strides that a neck reads from it."""
    (path,) = (CONFIGS / task).glob(f'*volo-nano_from-scratch_{gpus}-*.py')
    volo = load_recipe(path).to_dict()
    vit = load_recipe(path.with_name(path.name.replace('volo-nano', 'addp-vit-nano-p8'))).to_dict()
    volo.pop('channels', None)
    backbone, other = volo['model'].pop('backbone'), vit['model'].pop('backbone')
    assert (backbone['type'], backbone['arch'], backbone['img_size']) == ('addp_mm.VOLO', 'nano', other['img_size'])
    if task == 'seg':
        for cfg in (volo, vit):
            cfg['model']['neck'].pop('strides', None), cfg['model']['neck'].pop('embed_dims')
            cfg['model']['decode_head'].pop('in_channels')
    assert volo == vit
