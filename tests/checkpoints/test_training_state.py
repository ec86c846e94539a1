# Copyright (c) addp_mm contributors. Apache-2.0.
"""Two checkpoints are compared bit for bit, and differences are named."""

import copy
import re

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from addp_mm.checkpoints.training_state import differences


def checkpoint(folder='a', **changes):
    hub = dict(
        log_scalars={'train/loss': HistoryBuffer([1.0, 2.0], [1, 1]), 'train/time': HistoryBuffer([len(folder)], [1])},
        runtime_info=dict(best_ckpt=f'{folder}/best_4.pth', last_ckpt=f'{folder}/iter_4.pth', iter=4, cfg=folder),
        resumed_keys={},
    )
    return dict(
        meta=dict(iter=4, time=folder, cfg=folder),
        state_dict=dict(weight=torch.tensor([1.0, -0.0, float('nan')]), count=torch.tensor(3)),
        optimizer=dict(state={0: dict(exp_avg=torch.ones(2, dtype=torch.bfloat16))}, loss_scaler=dict(scale=2.0)),
        message_hub=hub,
        hook=dict(recent=[1.0, float('nan')], rows=np.zeros(2)),
    )


def test_runs_of_other_folders_and_times_are_equal():
    assert differences(checkpoint('a'), checkpoint('bbb')) == []


@pytest.mark.parametrize(
    'path, value, message',
    [
        ('state_dict.weight', torch.tensor([1.0, 0.0, float('nan')]), '1 of 3 values differ, by up to'),
        ('state_dict.count', torch.tensor(5), '1 of 1 values differ, by up to 2'),
        ('state_dict.count', torch.tensor(3.0), r'\[\] torch.int64 and \[\] torch.float32'),
        ('optimizer.state.0.exp_avg', torch.ones(3, dtype=torch.bfloat16), r'\[2\] torch.bfloat16 and \[3\]'),
        ('optimizer.loss_scaler.scale', 4.0, '2.0 and 4.0'),
        ('message_hub.log_scalars.train/loss', HistoryBuffer([1.0, 2.5], [1, 1]), 'values: 1 of 2 values'),
        ('message_hub.runtime_info.best_ckpt', 'a/best_2.pth', "'best_4.pth' and 'best_2.pth'"),
        ('meta.iter', 5, '4 and 5'),
        ('hook.rows', np.ones(2), '2 of 2 values differ, by up to 1'),
        ('hook.recent', [1.0, 2.0], 'nan and 2.0'),
    ],
)
def test_one_difference_is_named(path, value, message):
    first, second = checkpoint(), copy.deepcopy(checkpoint())
    part, *keys, last = second, *path.split('.')
    for key in keys:
        part = part[int(key) if key.isdigit() else key]
    part[last] = value
    (found,) = differences(first, second)
    assert found.startswith(path)
    assert re.search(message, found)


def test_what_only_one_has_is_named():
    first, second = checkpoint(), checkpoint()
    del second['optimizer'], first['hook']
    found = differences(first, second)
    assert 'optimizer.loss_scaler.scale is only in the first' in found
    assert 'hook.rows is only in the second' in found
