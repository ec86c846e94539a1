# Copyright (c) addp_mm contributors. Apache-2.0.
"""The detector and the segmentor that ship: names, and what differs from the short configs."""

import re

import pytest
from helpers.recipes import load_recipe

RECIPES = {
    'det/mask-rcnn_addp-vit-nano-p8_fpn_1xb16-fp32-12k_fashion-scenes-64px.py': (
        'det/mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px.py'
    ),
    'seg/upernet_addp-vit-nano-p8_1xb16-bf16-18k_fashion-scenes-64px.py': (
        'seg/upernet_addp-vit-nano-p8_ft_1xb16-fp32-400i_fashion-scenes-64px.py'
    ),
}


@pytest.mark.parametrize('recipe', RECIPES)
def test_names_agree_with_the_configs(recipe):
    cfg = load_recipe(recipe)
    precision, thousands = re.search(r'_1xb16-(bf16|fp32)-(\d+)k_', recipe).groups()
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == 1000 * int(thousands)
    assert cfg.optim_wrapper.type == dict(bf16='AmpOptimWrapper', fp32='OptimWrapper')[precision]
    # the last iteration is validated and saved
    assert cfg.train_cfg.max_iters % cfg.train_cfg.val_interval == 0
    assert cfg.train_cfg.max_iters % cfg.default_hooks.checkpoint.interval == 0


@pytest.mark.parametrize('recipe, short', RECIPES.items())
def test_model_data_and_optimizer_are_those_of_the_short_configs(recipe, short):
    cfg, short = load_recipe(recipe).to_dict(), load_recipe(short).to_dict()
    for one in (cfg, short):
        for head in ('decode_head', 'auxiliary_head'):
            if head in one['model']:
                one['model'][head]['loss_decode'].pop('class_weight', None)
        for option in ('type', 'dtype', 'loss_scale'):
            one['optim_wrapper'].pop(option, None)
        # test_uploads_become_as_large_as_the_scenes
        one['test_pipeline'] = [step for step in one['test_pipeline'] if step['type'] != 'Resize']
        for loader in ('val_dataloader', 'test_dataloader'):
            one[loader]['dataset'].pop('pipeline')
    same = [key for key in cfg if key not in ('max_iters', 'train_cfg', 'param_scheduler', 'default_hooks')]
    assert {key: cfg[key] for key in same} == {key: short.get(key) for key in same}


@pytest.mark.parametrize('recipe', RECIPES)
def test_uploads_become_as_large_as_the_scenes(recipe):
    cfg = load_recipe(recipe)
    assert cfg.val_dataloader.dataset.pipeline == cfg.test_dataloader.dataset.pipeline == cfg.test_pipeline
    steps = [step.type for step in cfg.test_pipeline]
    # targets keep the size of the image, at which the metrics compare
    assert steps.index('Resize') < steps.index('LoadAnnotations')
    assert cfg.test_pipeline[steps.index('Resize')] == dict(type='Resize', scale=(64, 64), keep_ratio=True)
