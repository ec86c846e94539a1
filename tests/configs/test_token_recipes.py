# Copyright (c) addp_mm contributors. Apache-2.0.
"""The configs that train a predictor on stored ids: values, optimizer, runs at reduced size."""

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.recipes import (
    CONFIGS,
    build_on_meta,
    build_recipe,
    load_recipe,
    optimizer_table,
    recipe_scope,
    shrink,
    train_step,
)
from PIL import Image

from addp_mm.checks.unknown_arguments import check_config
from addp_mm.registry import DATASETS

LARGE = 'pretrain/token-predictor_vit-base-p16_from-ids_8xb64-accum8-bf16-coslr-1600e_in1k-256px.py'
NANO = 'pretrain/token-predictor_nano-p8_from-ids_2xb16-fp32-8k_fashion-scenes-64px.py'
IMAGES = 'pretrain/token-predictor_nano-p8_2xb16-fp32-8k_fashion-scenes-64px.py'


def test_values_of_the_published_recipe():
    """The command for ViT-B in the README of github.com/LTH14/mage, and defaults in its code."""
    cfg = load_recipe(LARGE)
    check_config(cfg, needed=('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'))
    wrapper, model = cfg.optim_wrapper, cfg.model
    batch = 8 * cfg.train_dataloader.batch_size * wrapper.accumulative_counts
    assert batch == cfg.auto_scale_lr.base_batch_size == 4096
    assert wrapper.optimizer.lr == pytest.approx(2.4e-3)
    assert wrapper.optimizer.weight_decay == 0.05
    assert tuple(wrapper.optimizer.betas) == (0.9, 0.95)
    assert wrapper.clip_grad.max_norm == 3.0
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[1].end == 1600
    assert cfg.param_scheduler[0].end == 40
    assert (model.drop_ratio, model.shared_mask_ratio, model.codes_only) == (0.5, True, True)
    built = build_on_meta(cfg)
    assert (built.mask_ratio_min, built.mask_ratio_mean, built.mask_ratio_std) == (0.5, 0.55, 0.25)
    assert built.label_smoothing == 0.1
    predictor = built.predictor
    assert (predictor.num_tokens, predictor.word_embed.weight.shape) == (256, (2025, 768))
    assert (len(predictor.blocks), predictor.blocks[0].attn.num_heads) == (12, 12)
    assert (len(predictor.decoder_blocks), predictor.decoder_blocks[0].attn.num_heads) == (8, 16)
    assert {m.p for m in predictor.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}
    views = cfg.train_dataloader.dataset.views
    assert (views.image_size, views.augmentation, tuple(views.crop_scale)) == (256, 'crop', (0.2, 1.0))


@pytest.mark.parametrize('path', [LARGE, NANO])
def test_norms_and_biases_are_not_decayed(path):
    cfg = load_recipe(path)
    model = build_on_meta(cfg)
    expected = {
        name: (1.0, 0.0 if 'norm' in name or name.endswith('.bias') else 0.05)
        for name, parameter in model.named_parameters()
    }
    assert optimizer_table(cfg, model) == {key: pytest.approx(value) for key, value in expected.items()}
    assert expected['predictor.pos_embed'][1] == 0.05
    assert expected['predictor.head.bias'][1] == 0.0


def test_nano_differs_from_training_on_images_only_in_the_data_and_in_the_options_of_mage():
    ids, images = load_recipe(NANO), load_recipe(IMAGES)
    assert ids.model.predictor == images.model.predictor
    assert ids.train_dataloader.dataset.tokenizer == images.model.tokenizer
    assert ids.test_dataloader.dataset.tokenizer == images.model.tokenizer
    for key in ('optim_wrapper', 'param_scheduler', 'test_evaluator', 'auto_scale_lr', 'randomness'):
        assert ids[key] == images[key], key
    assert ids.train_cfg.max_iters == images.train_cfg.max_iters


def test_a_step_of_the_full_recipe_at_reduced_size():
    space = dict(codebook_size=16, num_class_slots=2, fake_class_slot=1)
    cfg = shrink(
        load_recipe(LARGE),
        **{
            'model.predictor.num_tokens': 16,
            'model.predictor.embed_dims': 8,
            'model.predictor.num_layers': 1,
            'model.predictor.num_heads': 2,
            'model.predictor.decoder_num_layers': 1,
            'model.predictor.decoder_num_heads': 2,
            'model.predictor.token_space': space,
            'optim_wrapper.accumulative_counts': 1,
        },
    )
    model = build_recipe(cfg)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with recipe_scope(cfg):
        losses = train_step(cfg, model, dict(inputs=torch.randint(0, 16, (4, 16))))
    assert 0 < losses['loss'] < 10
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


@pytest.mark.slow
def test_nano_trains_on_ids_written_by_the_command_in_the_config(tmp_path, monkeypatch):
    """The tool writes ids of a few images; a Runner trains the config on them for three steps."""
    from mmengine.runner import Runner

    spec = importlib.util.spec_from_file_location(
        'tokenize_images', CONFIGS.parent / 'tools/dataset_converters/tokenize_images.py'
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    command = (CONFIGS / '_base_/datasets/fashion_scenes_tokens.py').read_text().split('tokenize_images.py ')[1]
    words = [word for word in command.split('train_dataloader')[0].split() if word not in ('#', '\\')]
    tokenizer, _, _, *options = words
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))  # lists of images are cached there
    (tmp_path / 'images').mkdir()
    for index in range(32):
        pixels = np.random.default_rng(index).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'images/{index:02d}.png')
    tool.main([tokenizer, str(tmp_path / 'images'), str(tmp_path / 'tokens'), *options, '--num-workers', '0'])

    cfg = load_recipe(NANO)
    cfg.train_dataloader.dataset.data_root = str(tmp_path / 'tokens')
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.max_iters, cfg.work_dir, cfg.log_level = 3, str(tmp_path / 'work'), 'WARNING'
    with recipe_scope(cfg):
        runner = Runner.from_cfg(copy.deepcopy(cfg))
        runner.train()
    model = runner.model
    assert runner.iter == 3
    assert model.tokenizer is None
    weights = torch.load(Path(cfg.work_dir) / 'iter_3.pth', weights_only=False)['state_dict']
    assert {name.split('.')[0] for name in weights} == {'predictor'}

    other = dict(cfg.train_dataloader.dataset.to_dict(), views=dict(augmentation='crop'))
    with recipe_scope(cfg), pytest.raises(ValueError, match="views.augmentation is 'flip', but 'crop' is needed"):
        DATASETS.build(other)
