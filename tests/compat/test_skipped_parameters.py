# Copyright (c) addp_mm contributors. Apache-2.0.
"""Frozen parameters are named in one warning; trained parameters get their settings as before."""

import logging

import pytest
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.optim.optimizer import default_constructor
from torch import nn

from addp_mm.compat.skipped_parameters import patch_skipped_parameters


def warnings_of(model, **paramwise_cfg):
    """The optimizer wrapper of a model, and the lines that were logged as warnings."""
    lines = []
    logger = MMLogger.get_instance('skipped', logger_name='skipped')
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    optimizer = dict(type='SGD', lr=1.0, weight_decay=0.5)
    wrapper = build_optim_wrapper(
        model, dict(type='OptimWrapper', optimizer=optimizer, paramwise_cfg=paramwise_cfg or None)
    )
    return wrapper, lines


@pytest.fixture
def half_frozen():
    frozen, trained = (nn.Sequential(*(nn.Linear(2, 2) for _ in range(30))) for _ in range(2))
    return nn.ModuleDict(dict(tokenizer=frozen.requires_grad_(False), backbone=trained))


def test_frozen_parameters_are_counted_in_one_warning(half_frozen):
    wrapper, lines = warnings_of(half_frozen, bias_decay_mult=0.0)
    assert lines == [
        '60 parameters are skipped by the optimizer, since their requires_grad is False: '
        'tokenizer.0.weight, tokenizer.0.bias, tokenizer.1.weight and 57 more'
    ]
    groups = wrapper.optimizer.param_groups
    assert len(groups) == 60
    assert [group['weight_decay'] for group in groups] == [0.5, 0.0] * 30


def test_no_warning_without_frozen_parameters_or_without_paramwise_cfg(half_frozen):
    assert warnings_of(half_frozen['backbone'], bias_decay_mult=0.0)[1] == []
    assert warnings_of(half_frozen)[1] == []


def test_other_warnings_stay(half_frozen):
    model = nn.ModuleList([half_frozen['backbone'], half_frozen['backbone']])
    lines = warnings_of(model, bypass_duplicate=True, bias_decay_mult=0.0)[1]
    assert lines == []  # named_children gives a shared module once
    model[1] = nn.Linear(2, 2)
    model[1].weight = model[0][0].weight
    lines = warnings_of(model, bypass_duplicate=True, bias_decay_mult=0.0)[1]
    assert lines == ['1 is duplicate. It is skipped since bypass_duplicate=True']


def test_a_version_without_the_fault_is_not_patched(monkeypatch):
    monkeypatch.setattr(default_constructor.DefaultOptimWrapperConstructor, 'add_params', lambda *args, **kwargs: None)
    call = default_constructor.DefaultOptimWrapperConstructor.__call__
    assert not patch_skipped_parameters(default_constructor)
    assert default_constructor.DefaultOptimWrapperConstructor.__call__ is call
