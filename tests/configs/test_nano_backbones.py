# Copyright (c) addp_mm contributors. Apache-2.0.
"""Nano configs that differ from ADDP's in the backbone: the same otherwise, and a training step."""

import pytest
from helpers.recipes import CONFIGS, load_recipe

from addp_mm.analysis.batches import build_model, losses_of, scope_of, synthetic_batch

ADDP = 'addp-vit-nano-p8_ft'
OTHERS = ('mae-vit-nano-p8_ft', 'token-encoder-nano-p8_ft')
RECIPES = [
    (path, other) for task in ('cls', 'det', 'seg') for path in CONFIGS.glob(f'{task}/*{ADDP}*') for other in OTHERS
]


def of_backbone(path, other):
    return load_recipe(path.with_name(path.name.replace(ADDP, other)))


@pytest.mark.parametrize('path, other', RECIPES)
def test_only_the_backbone_differs(path, other):
    addp, cfg = load_recipe(path).to_dict(), of_backbone(path, other).to_dict()
    assert addp['model'].pop('backbone') != cfg['model'].pop('backbone')
    # variables of the base config, which nothing reads afterwards
    assert {key: value for key, value in cfg.items() if key not in ('tokenizer', 'token_encoder')} == addp


@pytest.mark.slow
@pytest.mark.parametrize('path, other', RECIPES)
def test_a_step_reaches_every_trained_parameter(path, other):
    cfg = of_backbone(path, other)
    model = build_model(cfg).train()
    with scope_of(cfg):
        data = model.data_preprocessor(synthetic_batch(cfg, 2, (64, 64)), training=True)
        loss, _ = model.parse_losses(losses_of(model, data))
    loss.backward()
    assert loss.isfinite()
    assert [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None] == []
    frozen = {name.split('.')[1] for name, one in model.named_parameters() if not one.requires_grad}
    assert frozen == ({'tokenizer'} if 'token' in other else set())
