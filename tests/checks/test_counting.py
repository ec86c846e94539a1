# Copyright (c) addp_mm contributors. Apache-2.0.
"""Loop, sampler, schedulers, hooks and log of a config must count the same thing."""

import pytest
from helpers.recipes import CONFIGS, load_recipe
from mmengine.config import Config
from mmengine.registry import DefaultScope

from addp_mm.checks.counting import check_counting, find_counting_faults
from addp_mm.checks.optimizer import check_optimizer
from addp_mm.checks.save_best import check_rules
from addp_mm.checks.training_loop import Loop, loop_of
from addp_mm.engine.runner_cfg import set_log_counting
from addp_mm.errors import ConfigError

EPOCHS = dict(by_epoch=True, max_epochs=12)
ITERATIONS = dict(by_epoch=False, max_iters=300, val_interval=50)
SAVED = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=50))


def config(train_cfg=ITERATIONS, sampler='DefaultSampler', hooks=SAVED, **settings):
    return Config(
        dict(
            train_cfg=dict(train_cfg),
            train_dataloader=dict(batch_size=2, sampler=dict(type=sampler)),
            val_dataloader=dict(batch_size=1),
            default_hooks=hooks if train_cfg.get('max_iters') else {},
            **settings,
        )
    )


def warnings_of(cfg):
    found = find_counting_faults(cfg)
    assert found.errors == []
    return found.warnings


@pytest.mark.parametrize('sampler', ['InfiniteSampler', 'addp_mm.ResumableInfiniteSampler', 'mmdet.MultiSourceSampler'])
@pytest.mark.parametrize('train_cfg', [EPOCHS, dict(type='EpochBasedTrainLoop', max_epochs=2)])
def test_an_epoch_needs_a_sampler_with_an_end(sampler, train_cfg):
    if sampler.startswith('mmdet'):
        import mmdet.datasets  # noqa: F401
    with pytest.raises(ConfigError, match=r'train_dataloader.sampler .*Sampler has no end.*max_iters'):
        check_counting(config(train_cfg, sampler))
    check_counting(config(train_cfg, 'DefaultSampler'))
    check_counting(config(ITERATIONS, sampler))


@pytest.mark.parametrize(
    'train_cfg, loop',
    [
        (EPOCHS, Loop(True, 12)),
        (ITERATIONS, Loop(False, 300)),
        (dict(type='IterBasedTrainLoop', max_iters=5), Loop(False, 5)),
        (dict(type='UnknownLoop', max_iters=5), None),
        (None, None),
    ],
)
def test_the_loop_of_a_config(train_cfg, loop):
    assert loop_of(Config(dict(train_cfg=train_cfg))) == loop


@pytest.mark.parametrize(
    'train_cfg, words',
    [
        (dict(type='EpochBasedTrainLoop', by_epoch=True, max_epochs=2), "type='EpochBasedTrainLoop' and by_epoch"),
        (dict(max_epochs=2), 'needs by_epoch=True with max_epochs'),
        (dict(by_epoch=True), 'counts epochs and has no max_epochs'),
        (dict(type='IterBasedTrainLoop'), 'counts iterations and has no max_iters'),
        (dict(by_epoch=True, max_epochs=2, max_iters=9), 'has max_epochs and max_iters: remove'),
    ],
)
def test_a_loop_that_cannot_be_built_is_refused(train_cfg, words):
    with pytest.raises(ConfigError, match=words):
        check_counting(config(train_cfg))


def test_schedules_that_count_epochs_in_a_loop_of_iterations_are_refused_with_the_checkpoints():
    schedules = [dict(type='CosineAnnealingLR', T_max=300)]
    cfg = config(param_scheduler=schedules, hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2)))
    with pytest.raises(ConfigError) as caught:
        check_counting(cfg)
    assert 'param_scheduler.0 (CosineAnnealingLR) counts epochs' in str(caught.value)
    assert 'Set param_scheduler.0.by_epoch=False' in str(caught.value)
    assert 'default_hooks.checkpoint counts epochs' in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'schedules, path',
    [
        (dict(type='StepLR', step_size=5), 'param_scheduler'),
        (dict(tokenizer=[dict(type='StepLR', step_size=5)]), 'param_scheduler.tokenizer.0'),
        (dict(tokenizer=dict(type='StepLR', step_size=5)), 'param_scheduler.tokenizer'),
    ],
)
def test_the_path_of_a_schedule(schedules, path):
    with pytest.raises(ConfigError, match=rf'config: {path} \(StepLR\)'):
        check_counting(config(param_scheduler=schedules))


def test_schedules_that_fit_a_loop_of_iterations():
    for schedule in (
        dict(type='CosineAnnealingLR', by_epoch=False),
        dict(type='CosineAnnealingLR', end=2, convert_to_iter_based=True),
        dict(type='ReduceOnPlateauLR', monitor='mIoU', rule='greater'),
        dict(type='MultiStepLR', by_epoch=False, milestones=[100, 200]),
        dict(type='LinearLR', by_epoch=False, end=20),
    ):
        assert warnings_of(config(param_scheduler=[schedule])) == []
    # warm-up by iterations in a loop of epochs, and a short cosine before the last epochs
    fit = [
        dict(type='LinearLR', by_epoch=False, end=500),
        dict(type='CosineAnnealingLR', begin=6, end=12, T_max=6),
        dict(type='ConstantLR', begin=10, end=12),
    ]
    assert warnings_of(config(EPOCHS, param_scheduler=fit)) == []


@pytest.mark.parametrize(
    'schedule, words',
    [
        (dict(type='CosineAnnealingLR', T_max=150), 'rises again after its minimum. Set param_scheduler.0.T_max=300'),
        (dict(type='CosineAnnealingLR', T_max=600), 'does not reach its minimum'),
        (dict(type='CosineAnnealingLR', end=600), 'training stops before its last value'),
        (dict(type='PolyLR', end=200), 'the learning rate stays the same after it. Set param_scheduler.0.end=300'),
        (dict(type='PolyLR', begin=300, end=900), 'has no effect'),
        (dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True), 'has no end'),
    ],
)
def test_schedules_of_another_length_cause_one_warning(schedule, words):
    (warning,) = warnings_of(config(param_scheduler=[{'by_epoch': False, **schedule}]))
    assert words in warning


def test_one_cycle_must_be_as_long_as_the_training():
    def scheduled(**options):
        return config(param_scheduler=[dict(type='OneCycleLR', eta_max=0.1, by_epoch=False, **options)])

    with pytest.raises(ConfigError, match=r'total_steps=200 and would be asked for step 299.*total_steps=300'):
        check_counting(scheduled(total_steps=200))
    for fit in (dict(total_steps=300), dict(total_steps=299), dict(total_steps=200, end=200)):
        check_counting(scheduled(**fit))


@pytest.mark.parametrize(
    'hook, words',
    [
        (dict(type='CheckpointHook', interval=1), 'the only checkpoint would be written at the end'),
        (dict(type='CheckpointHook', by_epoch=False, interval=1), 'after each iteration'),
        (dict(type='CheckpointHook', by_epoch=False, interval=400, save_last=False), 'no checkpoint would be written'),
        (dict(type='ProfilerHook', by_epoch=True), r'custom_hooks.0.by_epoch=False'),
        (dict(type='mmdet.PipelineSwitchHook', switch_epoch=5, switch_pipeline=[]), 'switch_epoch=5 counts epochs'),
    ],
)
def test_hooks_that_do_not_fit_cause_one_warning(hook, words):
    if hook['type'] == 'CheckpointHook':
        cfg = config(hooks=dict(checkpoint=hook))
    else:
        import mmdet.engine  # noqa: F401

        cfg = config(custom_hooks=[hook])
    (warning,) = warnings_of(cfg)
    assert words in warning


def test_the_checkpoint_hook_that_mmengine_adds_counts_epochs():
    assert ['default_hooks.checkpoint counts epochs' in one for one in warnings_of(config(hooks={}))] == [True]
    assert warnings_of(config(hooks=dict(checkpoint=None))) == []


def test_averages_that_begin_beyond_the_training_are_refused():
    for train_cfg, options, words in (
        (ITERATIONS, dict(begin_epoch=3), 'begin_epoch=3 counts epochs.*begin_iter'),
        (ITERATIONS, dict(begin_iter=301), 'begin_iter=301 is beyond the end'),
        (EPOCHS, dict(begin_epoch=13), 'begin_epoch=13 is beyond the end'),
    ):
        with pytest.raises(ConfigError, match=f'custom_hooks.0.{words}'):
            check_counting(config(train_cfg, custom_hooks=[dict(type='EMAHook', **options)]))
    for train_cfg, options in ((ITERATIONS, dict(begin_iter=300)), (EPOCHS, dict(begin_epoch=12)), (EPOCHS, {})):
        check_counting(config(train_cfg, custom_hooks=[dict(type='EMAHook', **options)]))


def test_validation_that_does_not_take_place_or_too_often():
    (late,) = warnings_of(config(dict(ITERATIONS, val_begin=400)))
    assert 'val_begin=400 is beyond the end' in late
    (often,) = warnings_of(config(dict(ITERATIONS, val_interval=1)))
    assert 'validates after each iteration' in often
    (never,) = warnings_of(config(dict(ITERATIONS, dynamic_intervals=[(500, 10)])))
    assert 'from 500 on' in never
    # an epoch more than there are switches validation off, as stock configs do
    assert warnings_of(config(dict(EPOCHS, val_begin=13))) == []
    assert warnings_of(config(dict(ITERATIONS, max_iters=4, val_interval=1), hooks=dict(checkpoint=None))) == []


def test_the_log_of_a_loop_of_iterations_counts_iterations():
    cfg = config()
    set_log_counting(cfg)
    assert cfg.log_processor == dict(by_epoch=False)
    assert cfg.default_hooks.logger == dict(type='LoggerHook', log_metric_by_epoch=False)
    said = config(log_processor=dict(by_epoch=True), hooks=dict(SAVED, logger=None))
    set_log_counting(said)
    assert said.log_processor.by_epoch
    assert said.default_hooks.logger is None
    epochs = config(EPOCHS)
    set_log_counting(epochs)
    assert 'log_processor' not in epochs


@pytest.mark.slow
def test_every_shipped_config_is_silent():
    count = 0
    for path in sorted(CONFIGS.glob('[a-z]*/*.py')):
        cfg = load_recipe(path)
        if cfg.get('train_cfg') is None:
            continue
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            found = find_counting_faults(cfg)
            check_optimizer(cfg)
            check_rules(cfg)
        assert (found.errors, found.warnings) == ([], []), path
        count += loop_of(cfg) is not None
    assert count > 80


def test_an_end_that_is_no_number_is_named():
    schedule = dict(type='LinearLR', by_epoch=False, end='12')
    cfg = config(param_scheduler=[schedule], optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))
    assert warnings_of(cfg) == []
    with pytest.raises(ConfigError, match='param_scheduler.0 cannot be built'):
        check_optimizer(cfg)
