# Copyright (c) addp_mm contributors. Apache-2.0.
"""compile=True trains every kind of model as without it, also with moving averages.

The backend is dynamo's own: it traces as the default one does, and needs no C++ compiler.
"""

import pytest
import torch
from helpers import tiny_tasks
from helpers.tiny_pretraining import build_runner
from mmengine.hooks import Hook

pytestmark = pytest.mark.slow
# its groups of parameters come from a ConfigDict
GROUPS = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)


class Losses(Hook):
    def __init__(self):
        self.values = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.values.append(float(outputs['loss']))


def train(task, work_dir, compiled):
    """Losses of two iterations, and the averaged weights after them."""
    losses = Losses()
    hooks = [losses, dict(type='EMAHook', momentum=0.1)]

    def change(runner):
        if compiled:
            runner.cfg.compile = dict(backend='eager')

    if task == 'pretrain':
        torch.manual_seed(0)
        runner = build_runner(work_dir, max_iters=2, custom_hooks=hooks)
        change(runner)
        runner.train()
    else:
        tiny_tasks.train(task, work_dir, max_iters=2, change=change, optim_wrapper=GROUPS, custom_hooks=hooks)
    saved = torch.load(work_dir / 'iter_2.pth', weights_only=False)
    return losses.values, saved['state_dict']


@pytest.fixture(autouse=True)
def no_compiled_code():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize('task', ['cls', 'det', 'seg', 'pretrain'])
def test_compiled_equals_eager(task, tmp_path):
    (losses, weights), (expected, unchanged) = (train(task, tmp_path / str(flag), flag) for flag in (True, False))
    assert torch._dynamo.utils.counters['frames']['ok'] > 10  # it was compiled
    assert len(expected) == 2
    assert losses == pytest.approx(expected, rel=1e-4)
    for name, value in unchanged.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-4)
