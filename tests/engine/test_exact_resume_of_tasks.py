# Copyright (c) addp_mm contributors. Apache-2.0.
"""A resumed classifier, detector or segmentor has the weights of an uninterrupted run.

Dropout, drop path and the sampling of regions draw from the generators of the process.
"""

import pytest
import torch
from helpers.tiny_tasks import TASKS, train

from addp_mm.engine.hooks import RandomStateHook

pytestmark = pytest.mark.slow


def without_hook(runner):
    runner._hooks = [one for one in runner.hooks if not isinstance(one, RandomStateHook)]


def tensors(work_dir):
    checkpoint = torch.load(work_dir / 'iter_4.pth', weights_only=False)
    moments = checkpoint['optimizer']['state']
    return {
        **checkpoint['state_dict'],
        **{f'{number}.{name}': value for number, state in moments.items() for name, value in state.items()},
    }


@pytest.mark.parametrize('task', TASKS)
def test_resumed_equals_uninterrupted(task, tmp_path):
    train(task, tmp_path / 'whole')
    whole = tensors(tmp_path / 'whole')
    resume = dict(resume=True, load_from=str(tmp_path / 'whole/iter_2.pth'))
    train(task, tmp_path / 'resumed', **resume)
    resumed = tensors(tmp_path / 'resumed')
    assert whole.keys() == resumed.keys()
    assert [name for name, value in whole.items() if not torch.equal(value, resumed[name])] == []
    # without the hook other numbers are drawn, and the comparison fails
    train(task, tmp_path / 'without', change=without_hook, **resume)
    without = tensors(tmp_path / 'without')
    assert [name for name, value in whole.items() if not torch.equal(value, without[name])]
