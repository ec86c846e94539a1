# Copyright (c) addp_mm contributors. Apache-2.0.
"""The configs that align a generator: they are built, and differ in what their names say."""

import pytest
from helpers.recipes import CONFIGS, build_on_meta, build_recipe, load_recipe, recipe_paths, undocumented

from addp_mm.alignment.pipeline.plan import read_plan
from addp_mm.alignment.rewards import build_reward
from addp_mm.checkpoints.fingerprint import module_fingerprint, weights_fingerprint
from addp_mm.checkpoints.init_weights import init_weights
from addp_mm.checks.unknown_arguments import check_config
from addp_mm.config.config_file import load_config
from addp_mm.models.layers.lora_weights import is_adapter

LARGE = recipe_paths('align', '*.py')
NANO = sorted(path for path in (CONFIGS / 'align').glob('*nano*.py'))
METHODS = {path.stem.partition('_')[0]: path for path in NANO}


@pytest.mark.parametrize('path', LARGE, ids=lambda path: path.stem)
def test_large_configs_are_built_with_adapters_only_to_train(path):
    cfg = load_recipe(path)
    check_config(cfg, needed=('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'))
    model = build_on_meta(cfg)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(is_adapter(name) for name in trained)
    assert {name.split('.')[1] for name in trained} == {'backbone', 'neck'}


def test_readme_and_metafile_name_every_recipe():
    assert undocumented('align') == []


def test_the_methods_differ_in_their_losses():
    losses = {
        name: (cfg.model.get('weighted'), cfg.model.get('loss'), 'scores' in cfg.train_dataloader.dataset)
        for name, cfg in ((name, load_recipe(path)) for name, path in METHODS.items())
    }
    sequence, token = dict(beta=0.1, form='sequence'), dict(beta=0.1, form='token')
    assert losses == {
        'likelihood': (None, None, False),
        'dpo': ('none', sequence, False),
        'rpo': ('none', dict(sequence, likelihood_weight=3.0), False),
        'token-dpo': ('none', token, False),
        'cdpo': ('rejected', sequence, True),
        'cdpo-rank': ('rejected', dict(sequence, likelihood_weight=3.0), True),
        'cdpo-per-token': ('rejected', token, True),
    }
    ranked = [name for name, path in METHODS.items() if load_recipe(path).model.get('weights') == 'rank']
    assert ranked == ['cdpo-rank']


def test_all_nano_methods_are_one_plan_whose_parts_exist():
    methods = [str(path) for name, path in METHODS.items() if name != 'likelihood']
    plan = read_plan(methods)
    assert sorted(plan.methods) == sorted({*METHODS} - {'likelihood'})
    assert plan.num_images == 1280
    assert plan.likelihood.model.type == 'addp_mm.LikelihoodTuning'
    assert build_reward(plan.reward).name == 'ClassifierReward'


def test_the_generator_of_the_configs_is_the_shipped_one():
    from addp_mm.apis import load_model

    cfg = load_recipe(METHODS['cdpo'])
    tuning = build_recipe(cfg)
    init_weights(tuning.generator)
    base = cfg.alignment.base
    weights = {name: value for name, value in tuning.generator.state_dict().items() if not is_adapter(name)}
    assert weights_fingerprint(weights) == module_fingerprint(load_model(base.config, base.checkpoint))


@pytest.mark.parametrize('path', LARGE, ids=lambda path: path.stem)
def test_large_plans_name_configs_that_exist(path):
    section = load_recipe(path).alignment
    for name in (section.base.config, section.likelihood, section.reward.config):
        assert load_config(name).model
