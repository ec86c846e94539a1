# Copyright (c) addp_mm contributors. Apache-2.0.
"""compile=True trains every kind of model as without it, and compiles in the first two steps only.

The backend is dynamo's own: it traces as the default one does, and needs no C++ compiler.
"""

import pytest
import torch
from helpers import tiny_tasks
from helpers.tiny_pretraining import build_runner
from mmengine.hooks import Hook

from addp_mm.benchmark.compilations import recorded_compilations
from addp_mm.models.layers import dropout

pytestmark = pytest.mark.slow
# its groups of parameters come from a ConfigDict
GROUPS = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
# another learning rate in each iteration
SCHEDULE = dict(type='LinearLR', start_factor=0.5, by_epoch=False, begin=0, end=20)


STEPS = 6


class Record(Hook):
    """The loss of each iteration, and what was compiled until its end."""

    def __init__(self, compilations):
        self.compilations = compilations
        self.losses, self.counts = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(float(outputs['loss'].detach()))
        self.counts.append(self.compilations.counts)


def train(task, work_dir, compiled):
    """What the hook recorded, and the averaged weights after the training."""
    with recorded_compilations() as compilations:
        record = Record(compilations)
        hooks = [record, dict(type='EMAHook', momentum=0.1)]

        def change(runner):
            if compiled:
                runner.cfg.compile = dict(backend='eager')

        if task == 'pretrain':
            torch.manual_seed(0)
            runner = build_runner(work_dir, max_iters=STEPS, custom_hooks=hooks)
            change(runner)
            runner.train()
        else:
            settings = dict(optim_wrapper=GROUPS, param_scheduler=SCHEDULE, custom_hooks=hooks)
            tiny_tasks.train(task, work_dir, max_iters=STEPS, change=change, **settings)
    saved = torch.load(work_dir / f'iter_{STEPS}.pth', weights_only=False)
    return record, saved['state_dict']


def torch_factors(x, p):
    """The factors of torch's dropout, which compiled code uses: both trainings draw the same."""
    return torch.empty_like(x).bernoulli_(1 - p).div_(1 - p)


def with_gradient(name, value):
    """Without the bias of keys: its gradient is rounding, of which AdamW makes whole steps."""
    return torch.cat(value.chunk(3)[::2]) if name.endswith('attn.qkv.bias') else value


@pytest.mark.parametrize('task', ['cls', 'det', 'seg', 'pretrain'])
def test_compiled_equals_eager_and_later_steps_compile_nothing(task, tmp_path, monkeypatch):
    monkeypatch.setattr(dropout, '_factors', torch_factors)
    (found, weights), (expected, unchanged) = (train(task, tmp_path / str(flag), flag) for flag in (True, False))
    assert expected.counts[-1] == (0, 0)
    assert found.counts[0].graphs >= 2  # it was compiled
    assert found.counts[-1] == found.counts[1], found.compilations.reasons
    assert len(expected.losses) == STEPS
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)
    for name, value in unchanged.items():
        ours, other = (with_gradient(name, one) for one in (weights[name], value))
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=2e-4)
