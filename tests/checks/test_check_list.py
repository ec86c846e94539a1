# Copyright (c) addp_mm contributors. Apache-2.0.
"""The list of checks: which checks there are, and both ways to run them."""

import pytest
from mmengine.config import Config

from addp_mm.checks.check_list import Check, collect_errors, data_checks, run_checks
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


def test_data_that_two_splits_share_are_checked_once():
    train, val = dict(dataset=dict(type='A')), dict(dataset=dict(type='B'))
    cfg = Config(dict(train_dataloader=train, val_dataloader=val, test_dataloader=val))
    names = [check.name for check in data_checks(cfg, 'train', 'val', 'test')]
    assert names == ['data of train_dataloader', 'data of val_dataloader', 'val_evaluator', 'test_evaluator']
    assert [check.name for check in data_checks(cfg, 'test')] == ['data of test_dataloader', 'test_evaluator']
    cfg.test_cfg = dict(bank_dataloader=train)
    assert 'data of test_cfg.bank_dataloader' in [check.name for check in data_checks(cfg, 'test')]
    assert [check.name for check in data_checks(Config(dict(val_dataloader=None)), 'train', 'val')] == ['val_evaluator']
