# Copyright (c) addp_mm contributors. Apache-2.0.
"""The hooks that the tools add."""

import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.registry import HOOKS

from addp_mm.config.type_names import type_name
from addp_mm.engine.added_hooks import add_test_hooks, add_training_hooks, leave_out_none
from addp_mm.engine.hooks import CheckpointHook
from addp_mm.errors import ConfigError

DEFAULT = dict(
    random_state=dict(type='addp_mm.RandomStateHook'),
    guard=dict(type='addp_mm.TrainingGuardHook'),
    broken_samples=dict(type='addp_mm.BrokenSamplesHook'),
)
LAST = ['PendingValidationHook', 'ResumeHook', 'PreflightHook', 'StopHook']


def kinds(cfg):
    return [type_name(hook.type) for hook in cfg.custom_hooks]


def test_a_training_gets_its_hooks_once_behind_its_own():
    cfg = Config(dict(default_hooks=dict(logger=None), custom_hooks=[dict(type='EMAHook')]))
    for _ in range(2):
        add_training_hooks(cfg)
        checkpoint = dict(type='addp_mm.CheckpointHook', interval=1)
        assert cfg.default_hooks == dict(DEFAULT, logger=None, checkpoint=checkpoint)
        assert kinds(cfg) == ['EMAHook', *LAST]


def test_a_written_config_takes_the_options_of_the_new_command():
    cfg = Config()
    add_training_hooks(cfg, override_schedule=True)
    assert cfg.custom_hooks[1].override_schedule
    add_training_hooks(cfg)
    assert not cfg.custom_hooks[1].override_schedule


def test_none_leaves_a_hook_out():
    cfg = Config(dict(default_hooks=dict.fromkeys([*DEFAULT, 'checkpoint', 'timer'])))
    add_training_hooks(cfg)
    leave_out_none(cfg)
    assert cfg.default_hooks == dict(checkpoint=None, timer=None)  # mmengine leaves out its own


@pytest.mark.parametrize('name', list(DEFAULT))
def test_a_hook_of_the_config_is_not_added_again(name):
    own = dict(DEFAULT[name], priority='LOW')
    cfg = Config(dict(custom_hooks=[own]))
    add_training_hooks(cfg)
    assert name not in cfg.default_hooks
    assert cfg.custom_hooks[0] == own


@pytest.mark.parametrize(
    'hook', ['CheckpointHook', 'mmengine.CheckpointHook', 'mmengine.hooks.CheckpointHook', MMEngineCheckpointHook]
)
def test_the_checkpoint_hook_becomes_ours_with_its_arguments(hook):
    own = dict(type=hook, interval=3, save_best='auto')
    cfg = Config(dict(default_hooks=dict(checkpoint=own), custom_hooks=[dict(own, interval=5)]))
    add_training_hooks(cfg)
    assert cfg.default_hooks.checkpoint == dict(type='addp_mm.CheckpointHook', interval=3, save_best='auto')
    assert cfg.custom_hooks[0] == dict(type='addp_mm.CheckpointHook', interval=5, save_best='auto')
    assert type(HOOKS.build(dict(cfg.default_hooks.checkpoint))) is CheckpointHook


def test_early_stopping_becomes_ours():
    cfg = Config(dict(custom_hooks=[dict(type='EarlyStoppingHook', monitor='acc')]))
    add_training_hooks(cfg)
    assert cfg.custom_hooks[0] == dict(type='addp_mm.EarlyStoppingHook', monitor='acc')


def test_the_schedule_of_deepspeed_cannot_be_overridden():
    cfg = Config(dict(strategy=dict(type='addp_mm.ZeroStrategy')))
    with pytest.raises(ConfigError, match='does not fit ZeroStrategy'):
        add_training_hooks(cfg, override_schedule=True)


def test_a_test_gets_its_hooks():
    cfg = Config(dict(custom_hooks=[dict(type='addp_mm.PreflightHook', testing=False)]))
    add_test_hooks(cfg)
    assert cfg.default_hooks == dict(broken_samples=DEFAULT['broken_samples'])
    assert cfg.custom_hooks == [dict(type='addp_mm.PreflightHook', testing=True)]
