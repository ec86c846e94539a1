# Copyright (c) addp_mm contributors. Apache-2.0.
"""The list of checks: which checks there are, and both ways to run them."""

import pytest
from mmengine.config import Config

from addp_mm.checks.check_list import Check, collect_errors, data_checks, run_checks, settings_checks
from addp_mm.errors import ConfigError


def failing(error):
    def run():
        raise error

    return run


def test_all_errors_are_collected_by_name():
    checks = [
        Check('a', failing(ConfigError('first'))),
        Check('b', lambda: None),
        Check('a', failing(ConfigError('second'))),
        Check('c', failing(KeyError('bbox'))),
        Check('c', lambda: None),
    ]
    assert collect_errors(checks) == {'a': ['first', 'second'], 'b': [], 'c': ["KeyError: 'bbox'"]}


def test_run_stops_at_the_first_error():
    ran = []
    checks = [Check('a', lambda: ran.append(1)), Check('b', failing(ConfigError('wrong'))), Check('c', ran.clear)]
    with pytest.raises(ConfigError, match='wrong'):
        run_checks(checks)
    assert ran == [1]


def test_after_a_failure_its_parts_are_run():
    parts = [failing(ConfigError('train')), lambda: None, failing(ConfigError('val'))]
    assert collect_errors([Check('data', failing(ConfigError('train')), parts)]) == {'data': ['train', 'val']}
    assert collect_errors([Check('data', lambda: None, parts)]) == {'data': []}


def loaders_of(cfg, *splits):
    """Names of the checks, and the loaders that the check of the data takes."""
    *others, data = data_checks(cfg, *splits)
    assert data.name == 'data'
    assert [part.args[1:] for part in data.parts] == [(name,) for name in data.run.args[1:]]
    return [check.name for check in others], list(data.run.args[1:])


def test_data_that_two_splits_share_are_checked_once():
    train, val, metric = dict(dataset=dict(type='A')), dict(dataset=dict(type='B')), dict(type='M')
    loaders = dict(train_dataloader=train, val_dataloader=val, test_dataloader=val)
    cfg = Config(dict(**loaders, val_evaluator=metric, test_evaluator=metric))
    evaluators = ['val_evaluator', 'test_evaluator']
    assert loaders_of(cfg, 'train', 'val', 'test') == (evaluators, ['train_dataloader', 'val_dataloader'])
    assert loaders_of(cfg, 'test') == (['test_evaluator'], ['test_dataloader'])
    cfg.test_cfg = dict(bank_dataloader=train)
    assert loaders_of(cfg, 'test') == (['test_evaluator'], ['test_dataloader', 'test_cfg.bank_dataloader'])
    assert loaders_of(Config(dict(val_dataloader=None)), 'train', 'val') == ([], [])


def test_the_sections_of_a_config_are_checked_one_by_one():
    cfg = Config(dict(model=dict(), default_hooks=dict(checkpoint=dict(type='CheckpointHook', intervall=1))))
    cfg.train_cfg = dict(max_epoch=0, max_epochs=0)
    found = collect_errors(settings_checks(cfg, ('model', 'optim_wrapper')))
    assert ['intervall' in text for text in found['arguments of the config']] == [False, True]
    assert 'optim_wrapper' in found['arguments of the config'][0]
    assert 'max_epochs' in found['numbers of the config'][0]
