# Copyright (c) addp_mm contributors. Apache-2.0.
"""A resumed classifier, detector or segmentor equals an uninterrupted one, bit for bit.

Dropout, drop path, mixup and the sampling of regions draw from the generators of the process.
"""

import pytest
from helpers.interrupted import STATUS, assert_equal_trainings, choose, in_a_fork
from helpers.kill_at import KillAt
from helpers.tiny_tasks import TASKS, train
from mmengine.runner.checkpoint import CheckpointLoader

from addp_mm.checkpoints.training_state import differences
from addp_mm.engine.hooks import RandomStateHook, StopHook

pytestmark = pytest.mark.slow
ADAMW = dict(type='AdamW', lr=1e-3)
PLAIN = dict(type='OptimWrapper', optimizer=ADAMW)
SCALED = dict(type='AmpOptimWrapper', dtype='float16', loss_scale=dict(init_scale=2.0**20, growth_interval=2))
SCHEDULES = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=2, end=6, eta_min=1e-5),
]
KINDS = dict(
    mixup=('cls', dict(SCALED, optimizer=ADAMW)),
    volo=('volo', PLAIN),
    det=('det', PLAIN),
    seg=('seg', dict(PLAIN, clip_grad=dict(max_norm=1.0))),
)
AUGMENTS = [dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]


def run(kind, work_dir, *hooks, **settings):
    """Train six iterations, with a checkpoint after the second and the fourth."""
    task, wrapper = KINDS[kind]

    def add_hooks(runner):
        for hook in (StopHook(), *hooks):
            runner.register_hook(hook)

    settings.setdefault('change', add_hooks)
    train(
        task,
        work_dir,
        max_iters=6,
        optim_wrapper=wrapper,
        augments=AUGMENTS if kind == 'mixup' else None,
        param_scheduler=SCHEDULES,
        custom_hooks=[dict(type='mmengine.EMAHook', momentum=0.1)],
        **settings,
    )


def from_last(work_dir):
    return dict(resume=True, load_from=(work_dir / 'last_checkpoint').read_text())


def without_hook(runner):
    runner._hooks = [one for one in runner.hooks if not isinstance(one, RandomStateHook)]


@pytest.mark.parametrize('kind', KINDS)
def test_a_stopped_training_equals_an_uninterrupted_one(kind, tmp_path):
    assert {task for task, _ in KINDS.values()} == set(TASKS)
    kill_at, whole, parts = choose(kind, 6), tmp_path / 'whole', tmp_path / 'parts'
    run(kind, whole)
    status, output = in_a_fork(tmp_path / 'log', run, kind, parts, KillAt(**kill_at))
    assert status == STATUS[kill_at['signal']], output
    run(kind, parts, **(from_last(parts) if (parts / 'last_checkpoint').exists() else {}))
    assert_equal_trainings(whole, parts, 'iter_6.pth')
    # without the hook other numbers are drawn, and the comparison fails
    start = dict(resume=True, load_from=str(whole / 'iter_4.pth'))
    run(kind, tmp_path / 'without', change=without_hook, **start)
    folders = (whole, tmp_path / 'without')
    one, other = (CheckpointLoader.load_checkpoint(str(folder / 'iter_6.pth')) for folder in folders)
    assert any(line.startswith('state_dict.') for line in differences(one, other))
