# Copyright (c) addp_mm contributors. Apache-2.0.
"""The full-size pre-training configs: models, optimizers, and one step at reduced size."""

import re

import pytest
import torch
from helpers.recipes import (
    build_on_meta,
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

PATHS = recipe_paths('pretrain', 'addp_*.py')
LONG = {
    'base': 'pretrain/addp_vit-base-p16_8xb64-accum8-bf16-coslr-1600e_in1k-256px.py',
    'large': 'pretrain/addp_vit-large-p16_8xb32-accum16-bf16-coslr-800e_in1k-256px.py',
}
SHORT = 'pretrain/addp_vit-base-p16_8xb64-accum8-bf16-coslr-100e_in1k-256px.py'
# setting in the name -> the one option that differs
ABLATIONS = {
    'predictor-dropout': {'predictor.train_dropout': True},
    'hard-target': {'hard_target': True},
    'no-unreliable': {'unreliable_tokens': False},
    'mask-from-0': {'schedule.min_ratio': 0.0},
    'mask-from-75': {'schedule.min_ratio': 0.75},
    'no-pre-norm': {'backbone.pre_norm': False},
}
SPACE = dict(codebook_size=16, num_class_slots=2, fake_class_slot=1)
SMALL = {
    'model.tokenizer': dict(
        type='addp_mm.VQTokenizer',
        base_channels=32,
        channel_mults=(1, 1),
        codebook_size=16,
        embed_dims=4,
        num_res_blocks=1,
        num_mid_blocks=1,
        stem_stride=2,
    ),
    'model.predictor.num_tokens': 16,
    'model.predictor.embed_dims': 8,
    'model.predictor.num_layers': 1,
    'model.predictor.num_heads': 2,
    'model.predictor.decoder_num_layers': 1,
    'model.predictor.decoder_num_heads': 2,
    'model.predictor.token_space': SPACE,
    'model.backbone.arch': dict(embed_dims=8, num_layers=2, num_heads=2),
    'model.backbone.img_size': 16,
    'model.backbone.patch_size': 4,
    'model.neck.num_tokens': 16,
    'model.neck.in_dims': 8,
    'model.neck.num_layers': 1,
    'model.neck.num_heads': 2,
    'model.neck.token_space': SPACE,
    'model.head.in_dims': 8,
    'model.head.token_space': SPACE,
    'optim_wrapper.accumulative_counts': 1,
}


def flat(node, path: str = '') -> dict:
    if isinstance(node, dict):
        return {key: value for name, part in node.items() for key, value in flat(part, f'{path}.{name}').items()}
    return {path.lstrip('.'): node}


@pytest.mark.parametrize('path', PATHS, ids=lambda path: path.stem)
def test_names_agree_with_the_configs(path):
    cfg = load_recipe(path)
    check_config(cfg, needed=('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'))
    gpus, batch, accum, precision, epochs, size = re.search(
        r'_(\d+)xb(\d+)-accum(\d+)-(\w+)-coslr-(\d+)e_in1k-(\d+)px$', path.stem
    ).groups()
    assert int(gpus) * int(batch) * int(accum) == cfg.auto_scale_lr.base_batch_size == 4096
    assert (cfg.train_dataloader.batch_size, cfg.optim_wrapper.accumulative_counts) == (int(batch), int(accum))
    assert (precision, cfg.optim_wrapper.dtype) == ('bf16', 'bfloat16')
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].end == int(epochs)
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin == {100: 10}.get(int(epochs), 40)
    assert cfg.train_pipeline[2].scale == cfg.model.backbone.img_size == int(size)
    assert f'vit-{cfg.model.backbone.arch}-p{cfg.model.backbone.patch_size}' in path.stem
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1.6e-3)


def test_every_ablation_changes_one_option_of_the_short_run():
    base = flat(load_recipe(SHORT).model.to_dict())
    found = {}
    for path in PATHS:
        setting = re.fullmatch(r'addp_vit-base-p16_(\D+(?:\d+)?)_8xb64-accum8-bf16-coslr-100e_in1k-256px', path.stem)
        if setting:
            cfg = load_recipe(path)
            assert {**cfg.to_dict(), 'model': 0} == {**load_recipe(SHORT).to_dict(), 'model': 0}
            changed = flat(cfg.model.to_dict())
            found[setting[1]] = {key: changed[key] for key in changed if changed[key] != base.get(key)}
    assert found == ABLATIONS


@pytest.mark.parametrize('arch', LONG)
def test_sizes_and_optimizer_of_the_published_models(arch):
    """Published widths and depths; no decay of norms and biases; one learning rate for all."""
    cfg = load_recipe(LONG[arch])
    model = build_on_meta(cfg)
    width, depth, heads = {'base': (768, 12, 12), 'large': (1024, 24, 16)}[arch]
    assert (model.backbone.embed_dims, len(model.backbone.blocks), model.backbone.blocks[0].attn.num_heads) == (
        width,
        depth,
        heads,
    )
    assert (len(model.neck.blocks), model.neck.blocks[0].attn.num_heads, model.neck.embed.in_features) == (8, 16, width)
    predictor = model.predictor
    assert (predictor.word_embed.weight.shape, len(predictor.blocks), predictor.blocks[0].attn.num_heads) == (
        (2025, width),
        depth,
        heads,
    )
    assert (len(predictor.decoder_blocks), predictor.decoder_blocks[0].attn.num_heads) == (8, 16)
    assert model.tokenizer.stride == 16
    assert model.latent_size == (16, 16)
    dropouts = {m.p for m in [*model.backbone.modules(), *model.neck.modules()] if isinstance(m, torch.nn.Dropout)}
    assert dropouts == {0.1}
    for part in model.frozen_components.values():
        assert part.init_cfg.strict
        assert part.init_cfg.checkpoint == f'hf://Changyao/ADDP/addp-vit-{arch}-16.pth'

    expected = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            expected[name] = (1.0, 0.0 if 'norm' in name or name.endswith('.bias') else 0.05)
    assert optimizer_table(cfg, model) == {key: pytest.approx(value) for key, value in expected.items()}
    assert not any(name.startswith(('tokenizer.', 'predictor.')) for name in expected)
    undecayed = {name for name, (_, decay) in expected.items() if not decay}
    assert {'backbone.pre_norm.weight', 'head.bias', 'neck.norm.weight'} <= undecayed
    assert not {'backbone.cls_token', 'neck.word_embed.weight', 'backbone.pos_embed'} & undecayed


@pytest.mark.parametrize('path', [p for p in PATHS if '100e' in p.stem], ids=lambda path: path.stem)
def test_a_step_at_reduced_size(path):
    cfg = shrink(load_recipe(path), **SMALL)
    model = build_recipe(cfg)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.manual_seed(1)
    batch = dict(inputs=torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8), data_samples=None)
    with recipe_scope(cfg):
        losses = train_step(cfg, model, batch)
    assert 0 < losses['loss'] < 10
    assert cfg.model.get('schedule', {}).get('min_ratio', 0.5) <= losses['mask_ratio'] < 1
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved is not name.startswith(('tokenizer.', 'predictor.')), name
    (features,) = model.eval()(torch.rand(2, 3, 16, 16), mode='tensor')
    assert features.shape == (2, 17, 8)
    assert torch.isfinite(features).all()


def test_images_are_cropped_as_published():
    pipeline = load_recipe(SHORT).train_dataloader.dataset.pipeline
    types = ['addp_mm.SeedAugmentation', 'LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip', 'PackInputs']
    assert [step.type for step in pipeline] == types
    crop = pipeline[2]
    assert (crop.scale, tuple(crop.crop_ratio_range), crop.interpolation) == (256, (0.2, 1.0), 'bicubic')


def test_readme_and_metafile_name_every_recipe():
    assert undocumented('pretrain') == []
