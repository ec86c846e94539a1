# Copyright (c) addp_mm contributors. Apache-2.0.
"""Options of optimizers and schedules that their constructors would refuse later."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from addp_mm.checks.optimizer import check_optimizer
from addp_mm.errors import ConfigError

ITERATIONS = dict(by_epoch=False, max_iters=100)
SGD = dict(type='SGD', lr=0.1)
ADAMW = dict(type='AdamW', lr=0.1, weight_decay=0.05)


def config(optimizer=ADAMW, schedules=None, **wrapper):
    return Config(
        dict(train_cfg=ITERATIONS, optim_wrapper=dict(optimizer=optimizer, **wrapper), param_scheduler=schedules)
    )


@pytest.mark.parametrize(
    'paramwise, key',
    [
        (dict(norm_decay_mult=0.0), 'norm_decay_mult'),
        (dict(bias_decay_mult=0.0), 'bias_decay_mult'),
        (dict(custom_keys={'.cls_token': dict(decay_mult=0.0)}), 'custom_keys..cls_token.decay_mult'),
    ],
)
def test_a_factor_of_the_weight_decay_needs_a_weight_decay(paramwise, key):
    with pytest.raises(ValueError, match='base_wd should not be None'):  # what mmengine says
        build_optim_wrapper(nn.Linear(1, 1), dict(optimizer=dict(SGD), paramwise_cfg=paramwise))
    with pytest.raises(ConfigError) as caught:
        check_optimizer(config(SGD, paramwise_cfg=paramwise))
    assert f'optim_wrapper.paramwise_cfg.{key} multiplies optim_wrapper.optimizer.weight_decay' in str(caught.value)
    assert 'Set optim_wrapper.optimizer.weight_decay (0.0, for none,' in str(caught.value)
    check_optimizer(config(dict(SGD, weight_decay=0.0), paramwise_cfg=paramwise))


def test_a_factor_of_the_rate_needs_a_rate():
    for constructor, paramwise in (
        ('DefaultOptimWrapperConstructor', dict(custom_keys=dict(head=dict(lr_mult=10)))),
        ('addp_mm.LayerDecayOptimWrapperConstructor', dict(layer_decay_rate=0.7)),
    ):
        cfg = config(dict(type='AdamW'), constructor=constructor, paramwise_cfg=paramwise)
        with pytest.raises(ConfigError, match='multiplies optim_wrapper.optimizer.lr, which is not set'):
            check_optimizer(cfg)


@pytest.mark.parametrize(
    'constructor, optimizer, paramwise, key',
    [
        ('mmpretrain.LearningRateDecayOptimWrapperConstructor', SGD, None, 'optimizer.weight_decay'),
        ('mmdet.LearningRateDecayOptimizerConstructor', ADAMW, dict(decay_rate=0.7), 'paramwise_cfg.num_layers'),
        ('mmseg.LayerDecayOptimizerConstructor', ADAMW, dict(num_layers=12), 'paramwise_cfg.layer_decay_rate'),
    ],
)
def test_the_layer_decay_of_the_packages_reads_options_that_must_be_set(constructor, optimizer, paramwise, key):
    cfg = config(optimizer, constructor=constructor, paramwise_cfg=paramwise)
    with pytest.raises(ConfigError, match=f'needs optim_wrapper.{key}, which is not set'):
        check_optimizer(cfg)


def test_a_layer_decay_that_no_constructor_reads_is_refused():
    paramwise = dict(layer_decay_rate=0.7)
    plain = build_optim_wrapper(nn.Linear(1, 1), dict(optimizer=dict(ADAMW), paramwise_cfg=dict(paramwise)))
    assert {group['lr'] for group in plain.optimizer.param_groups} == {0.1}  # mmengine ignores it
    with pytest.raises(ConfigError, match='paramwise_cfg.layer_decay_rate has no effect'):
        check_optimizer(config(paramwise_cfg=paramwise))
    check_optimizer(config(constructor='addp_mm.LayerDecayOptimWrapperConstructor', paramwise_cfg=paramwise))


@pytest.mark.parametrize('paramwise', ['norm_decay_mult=0', dict(custom_keys=['head']), dict(custom_keys=dict(head=2))])
def test_a_paramwise_cfg_of_another_form(paramwise):
    with pytest.raises(ConfigError, match='paramwise_cfg must be a dict, and its custom_keys a dict of dicts'):
        check_optimizer(config(paramwise_cfg=paramwise))


@pytest.mark.parametrize(
    'clipping, words',
    [
        (1.0, 'clip_grad must be a dict such as'),
        (dict(type='norms', max_norm=1), "clip_grad.type must be 'norm' or 'value'"),
        (dict(max_nrom=1), 'clip_grad.max_nrom is not an option.*did you mean max_norm'),
        (dict(), 'clip_grad needs max_norm'),
        (dict(type='value'), 'clip_grad needs clip_value'),
        (dict(max_norm=None), 'clip_grad needs max_norm'),
    ],
)
def test_clipping_is_known_before_the_first_step(clipping, words):
    with pytest.raises(ConfigError, match=f'optim_wrapper.{words}'):
        check_optimizer(config(clip_grad=clipping))


def test_right_clipping_passes():
    for clipping in (dict(max_norm=35, norm_type=2), dict(type='value', clip_value=0.2), None):
        check_optimizer(config(clip_grad=clipping))


@pytest.mark.parametrize(
    'optimizer, words',
    [
        (dict(ADAMW, weight_decay=-1.0), 'optim_wrapper.optimizer cannot be built: .*Invalid weight_decay'),
        (dict(ADAMW, betas=(0.9, 2.0)), 'optim_wrapper.optimizer cannot be built: .*Invalid beta'),
    ],
)
def test_an_optimizer_with_impossible_options(optimizer, words):
    with pytest.raises(ConfigError, match=words):
        check_optimizer(config(optimizer))


@pytest.mark.parametrize(
    'schedule, words',
    [
        (dict(type='LinearLR', begin=10, end=10), 'end should be larger than begin'),
        (dict(type='StepLR', step_size=0), 'modulo|division'),
        (dict(type='CosineAnnealingLR', eta_min=0.0, eta_min_ratio=0.1), 'eta_min'),
        (dict(type='OneCycleLR', eta_max=0.1, total_steps=-3), 'positive integer total_steps'),
        (dict(type='LinearLR', start_factor=3.0), 'Starting multiplicative factor'),
        (dict(type='MultiStepLR'), 'milestones'),
    ],
)
def test_a_schedule_with_impossible_options_is_named(schedule, words):
    schedules = [dict(type='ConstantLR', by_epoch=False), dict(schedule, by_epoch=False)]
    with pytest.raises(ConfigError, match=f'param_scheduler.1 cannot be built: .*{words}'):
        check_optimizer(config(schedules=schedules))


def test_a_negative_period_is_refused():
    with pytest.raises(ConfigError, match='param_scheduler.0.T_max must be positive, got -6'):
        check_optimizer(config(schedules=[dict(type='CosineAnnealingLR', T_max=-6, by_epoch=False)]))


def test_schedules_are_checked_with_their_own_optimizer():
    parts = dict(tokenizer=dict(optimizer=SGD), discriminator=dict(optimizer=ADAMW))
    cfg = Config(
        dict(train_cfg=ITERATIONS, optim_wrapper=dict(constructor='addp_mm.ComponentsOptimWrapperConstructor', **parts))
    )
    check_optimizer(cfg)
    cfg.param_scheduler = dict(discriminator=[dict(type='StepLR', by_epoch=False, step_size=0)])
    with pytest.raises(ConfigError, match='param_scheduler.discriminator.0 cannot be built'):
        check_optimizer(cfg)


def test_unknown_optimizers_and_random_numbers_are_left_alone():
    before = torch.get_rng_state()
    check_optimizer(config(dict(type='NotRegistered', lr=1)))
    check_optimizer(config(schedules=[dict(type='CosineAnnealingLR', by_epoch=False)]))
    assert torch.equal(before, torch.get_rng_state())
