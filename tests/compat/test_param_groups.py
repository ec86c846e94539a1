# Copyright (c) addp_mm contributors. Apache-2.0.
"""Parameter groups that torch.compile can trace."""

import torch

import addp_mm  # noqa: F401


def test_parameter_groups_are_plain_dicts():
    from mmengine.config import ConfigDict
    from mmengine.optim import build_optim_wrapper

    cfg = ConfigDict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=0.1, betas=(0.9, 0.95), weight_decay=0.05),
        paramwise_cfg=dict(bias_decay_mult=0.0),
    )
    groups = build_optim_wrapper(torch.nn.Linear(2, 2), cfg).optimizer.param_groups
    assert [type(group) for group in groups] == [dict, dict]  # torch.compile fails on a ConfigDict
    assert [group['weight_decay'] for group in groups] == [0.05, 0.0]
    assert {group['betas'] for group in groups} == {(0.9, 0.95)}
