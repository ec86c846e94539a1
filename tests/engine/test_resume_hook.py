# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a resumed training takes from its checkpoint, and what from its config."""

import copy
import math
from pathlib import Path

import pytest
import torch
from helpers.tiny_training import Rates, Scores, build_runner
from mmengine.hooks import Hook
from mmengine.runner import FlexibleRunner, Runner

from addp_mm.engine.hooks import ResumeHook
from addp_mm.engine.hooks.checkpoint_rollback import restore
from addp_mm.errors import ConfigError

WARM_UP = dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2)
COSINE = [WARM_UP, dict(type='CosineAnnealingLR', by_epoch=False, begin=2, end=8, eta_min_ratio=0.01)]
CONVERTED = [dict(type='CosineAnnealingLR', by_epoch=True, end=3, convert_to_iter_based=True)]
STEPS = [
    dict(WARM_UP, end=5),
    dict(type='MultiStepLR', by_epoch=True, milestones=[1, 2], gamma=0.3),
    dict(type='CosineAnnealingMomentum', by_epoch=False, eta_min=0.5),
]
DECAY = dict(
    optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}, bias_decay_mult=0.0),
)


def saved(path):
    return torch.load(path, weights_only=False)


def assert_equal_states(first, second):
    """Weights, moments, settings and schedules are equal, bit for bit."""
    for name, value in first['state_dict'].items():
        assert torch.equal(value, second['state_dict'][name]), name
    one, other = first['optimizer'], second['optimizer']
    assert one['param_groups'] == other['param_groups']
    for number, state in one['state'].items():
        assert all(torch.equal(value, other['state'][number][name]) for name, value in state.items())
    assert first['param_schedulers'] == second['param_schedulers']


def resumed(path, *args, override=True, **settings):
    hook = ResumeHook(override_schedule=override)
    return build_runner(*args, hooks=(hook, *settings.pop('hooks', ())), resume=True, load_from=str(path), **settings)


@pytest.mark.parametrize('optim_wrapper', [None, DECAY], ids=['one group', 'groups'])
@pytest.mark.parametrize(
    'by_epoch, total, stop, schedules',
    [
        (False, 8, 'iter_3', COSINE),
        (False, 8, 'iter_1', COSINE),
        (True, 3, 'epoch_1', CONVERTED),
        (True, 3, 'epoch_2', STEPS),
    ],
)
def test_an_unchanged_schedule_continues_bit_for_bit(tmp_path, by_epoch, total, stop, schedules, optim_wrapper):
    options = dict(by_epoch=by_epoch, schedules=schedules, optim_wrapper=optim_wrapper)
    build_runner(tmp_path / 'whole', total, **copy.deepcopy(options)).train()
    resumed(tmp_path / f'whole/{stop}.pth', tmp_path / 'parts', total, **copy.deepcopy(options)).train()
    last = f'{"epoch" if by_epoch else "iter"}_{total}.pth'
    assert_equal_states(saved(tmp_path / 'whole' / last), saved(tmp_path / 'parts' / last))


def test_a_new_schedule_has_the_rates_of_a_fresh_one(tmp_path):
    old = dict(schedules=copy.deepcopy(COSINE), optim_wrapper=copy.deepcopy(DECAY))
    new = dict(
        schedules=[WARM_UP, dict(type='CosineAnnealingLR', by_epoch=False, begin=2, end=12)],
        optim_wrapper=dict(copy.deepcopy(DECAY), optimizer=dict(type='AdamW', lr=0.3, weight_decay=0.2)),
    )
    build_runner(tmp_path / 'old', 5, **old).train()
    fresh, changed, kept = Rates(), Rates(), Rates()
    build_runner(tmp_path / 'fresh', 12, hooks=(fresh,), **copy.deepcopy(new)).train()
    start = tmp_path / 'old/iter_5.pth'
    resumed(start, tmp_path / 'new', 12, hooks=(changed,), **copy.deepcopy(new)).train()
    resumed(start, tmp_path / 'kept', 8, hooks=(kept,), override=False, **copy.deepcopy(new)).train()
    assert list(changed.rates) == list(range(6, 13))
    assert all(changed.rates[step] == fresh.rates[step] for step in changed.rates)
    assert all(changed.decays[step] == fresh.decays[step] == [0.2, 0.2, 0.2, 0.0] for step in changed.decays)
    assert changed.rates[6][0] == pytest.approx(0.1 * changed.rates[6][2])
    # the moments of the checkpoint are used
    state = saved(tmp_path / 'new/iter_12.pth')['optimizer']['state']
    assert {int(one['step']) for one in state.values()} == {12}
    # without the option the checkpoint's values stay
    assert kept.decays[6] == [0.05, 0.05, 0.05, 0.0]
    half = 0.01 * (0.01 + 0.99 * (1 + math.cos(math.pi * 3 / 6)) / 2)
    assert kept.rates[6][2] == pytest.approx(half)


def log_of(runner):
    return next(Path(runner.log_dir).glob('*.log')).read_text()


def test_each_difference_is_named(tmp_path):
    build_runner(tmp_path / 'old', 2, schedules=copy.deepcopy(COSINE)).train()
    new = dict(
        schedules=[WARM_UP, dict(type='CosineAnnealingLR', by_epoch=False, begin=2, end=12, eta_min_ratio=0.01)],
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.3, weight_decay=0.2, betas=(0.8, 0.9))),
    )
    runner = resumed(tmp_path / 'old/iter_2.pth', tmp_path / 'new', 3, override=False, **copy.deepcopy(new))
    runner.train()
    lines = log_of(runner)[log_of(runner).index('the checkpoint and the config differ') :].splitlines()[:6]
    assert 'Training uses those of the checkpoint; --override-schedule' in lines[0]
    assert [line.strip() for line in lines[1:]] == [
        'optim_wrapper.optimizer.betas: (0.9, 0.999) in the checkpoint, (0.8, 0.9) in the config',
        'optim_wrapper.optimizer.lr: 0.01 in the checkpoint, 0.3 in the config',
        'optim_wrapper.optimizer.weight_decay: 0.05 in the checkpoint, 0.2 in the config',
        'param_scheduler.1.T_max: 6 in the checkpoint, 10 in the config',
        'param_scheduler.1.end: 8 in the checkpoint, 12 in the config',
    ]


@pytest.mark.parametrize('override', [False, True])
def test_an_unchanged_config_has_no_difference(tmp_path, override):
    options = dict(by_epoch=True, schedules=copy.deepcopy(STEPS), optim_wrapper=copy.deepcopy(DECAY))
    build_runner(tmp_path / 'old', 3, **copy.deepcopy(options)).train()
    runner = resumed(tmp_path / 'old/epoch_2.pth', tmp_path / 'new', 3, override=override, **options)
    runner.train()
    assert 'differ' not in log_of(runner)


def test_schedules_are_added_and_removed(tmp_path):
    build_runner(tmp_path / 'with', 3, schedules=copy.deepcopy(COSINE)).train()
    build_runner(tmp_path / 'without', 3).train()
    added, removed, fresh = Rates(), Rates(), Rates()
    build_runner(tmp_path / 'fresh', 8, schedules=copy.deepcopy(COSINE), hooks=(fresh,)).train()
    schedules = copy.deepcopy(COSINE)
    resumed(tmp_path / 'without/iter_3.pth', tmp_path / 'a', 8, schedules=schedules, hooks=(added,)).train()
    resumed(tmp_path / 'with/iter_3.pth', tmp_path / 'b', 5, hooks=(removed,)).train()
    assert all(added.rates[step] == fresh.rates[step] for step in range(4, 9))
    runner = resumed(tmp_path / 'without/iter_3.pth', tmp_path / 'c', 4, override=False, schedules=[dict(WARM_UP)])
    runner.train()
    assert 'param_scheduler: 0 in the checkpoint, 1 in the config; the new ones start at step 0' in log_of(runner)
    assert removed.rates == {4: [0.01], 5: [0.01]}


def named_groups(decay):
    return dict(
        optimizer=dict(type='AdamW', lr=0.01, weight_decay=decay),
        constructor='addp_mm.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(bias_decay_mult=0.0),
    )


def with_layers():
    from helpers.tiny_training import TwoLayers

    model = TwoLayers()
    model.backbone.get_layer_depth = lambda name, prefix='': (0, 1)
    return model


def test_moments_follow_their_parameters_into_other_groups(tmp_path):
    build_runner(tmp_path / 'old', 2, optim_wrapper=named_groups(0.05), model=with_layers()).train()
    checkpoint = saved(tmp_path / 'old/iter_2.pth')
    assert len(checkpoint['optimizer']['param_groups']) == 2
    options = dict(optim_wrapper=named_groups(0.0), model=with_layers())
    with pytest.raises(ConfigError, match=r'1 parameter groups in the config and 2 other ones.*--override-schedule'):
        resumed(tmp_path / 'old/iter_2.pth', tmp_path / 'no', 3, override=False, **copy.deepcopy(options)).train()
    moments = {}

    class Keep(Hook):
        def before_train(self, runner):
            for name, parameter in runner.model.named_parameters():
                moments[name] = runner.optim_wrapper.optimizer.state[parameter]['exp_avg'].clone()

    resumed(tmp_path / 'old/iter_2.pth', tmp_path / 'new', 3, hooks=(Keep(),), **copy.deepcopy(options)).train()
    numbers = {
        name: number
        for group in checkpoint['optimizer']['param_groups']
        for name, number in zip(group['param_names'], group['params'], strict=True)
    }
    assert len(numbers) == len(moments) == 4
    for name, moment in moments.items():
        assert torch.equal(moment, checkpoint['optimizer']['state'][numbers[name]]['exp_avg'])


def test_a_checkpoint_without_optimizer_continues_the_schedules(tmp_path):
    build_runner(tmp_path / 'old', 5, schedules=copy.deepcopy(COSINE), checkpoint=dict(save_optimizer=False)).train()
    path = tmp_path / 'old/iter_5.pth'
    content = saved(path)
    del content['param_schedulers']  # as best_*.pth
    torch.save(content, path)
    fresh, later = Rates(), Rates()
    build_runner(tmp_path / 'fresh', 8, schedules=copy.deepcopy(COSINE), hooks=(fresh,)).train()
    runner = resumed(path, tmp_path / 'new', 8, schedules=copy.deepcopy(COSINE), hooks=(later,), override=False)
    runner.train()
    assert later.rates == {step: fresh.rates[step] for step in (6, 7, 8)}
    assert 'has no optimizer: its moments start at zero, and the schedules continue at iteration 5' in log_of(runner)


def test_a_schedule_that_depends_on_metrics_cannot_be_computed(tmp_path):
    schedules = [dict(type='ReduceOnPlateauLR', monitor='tiny/acc', rule='greater')]
    options = dict(schedules=schedules, by_epoch=True, scores=(0.5,))
    build_runner(tmp_path / 'old', 1, **copy.deepcopy(options)).train()
    with pytest.raises(ConfigError, match='ReduceOnPlateauLR depends on the metrics'):
        resumed(tmp_path / 'old/epoch_1.pth', tmp_path / 'new', 2, **copy.deepcopy(options)).train()


def best_of(folder):
    return sorted(path.name for path in Path(folder).glob('best_*'))


BEST = dict(save_best='tiny/acc', rule='greater')


def test_the_best_checkpoint_stays_the_best_after_a_resume(tmp_path):
    work = tmp_path / 'work'
    build_runner(work, 4, checkpoint=BEST, scores=(0.1, 0.5, 0.2, 0.9)).train()
    assert best_of(work) == ['best_tiny_acc_iter_4.pth']
    # iteration 3 knew 0.5; the new scores are better than that, and worse than 0.9
    before = (work / 'best_tiny_acc_iter_4.pth').read_bytes()
    resumed(work / 'iter_3.pth', work, 6, override=False, checkpoint=BEST, scores=(0.6, 0.7, 0.8)).train()
    assert best_of(work) == ['best_tiny_acc_iter_4.pth']
    assert (work / 'best_tiny_acc_iter_4.pth').read_bytes() == before
    resumed(work / 'iter_6.pth', work, 7, override=False, checkpoint=BEST, scores=(0.95,)).train()
    assert best_of(work) == ['best_tiny_acc_iter_7.pth']


def test_the_best_checkpoint_by_a_name_with_brackets_stays_too(tmp_path, monkeypatch):
    scores, name = [0.5, 0.2, 0.9], 'tiny/fid[net-v1]'
    monkeypatch.setattr(Scores, 'compute_metrics', lambda *_: {'fid[net-v1]': scores.pop(0)})
    best = dict(save_best=name, rule='less')
    build_runner(tmp_path, 2, checkpoint=best, scores=(0,)).train()
    # iteration 1 knew 0.5; 0.3 is better than that, and worse than 0.2
    scores[:] = [0.6, 0.3]
    resumed(tmp_path / 'iter_1.pth', tmp_path, 3, override=False, checkpoint=best, scores=(0,)).train()
    assert best_of(tmp_path) == ['best_tiny_fid[net-v1]_iter_2.pth']


def test_a_moved_work_dir_leaves_the_old_one_alone(tmp_path):
    old, new = tmp_path / 'old', tmp_path / 'new'
    build_runner(old, 2, checkpoint=BEST, scores=(0.1, 0.5)).train()
    new.mkdir()
    for path in old.glob('*.pth'):
        (new / path.name).write_bytes(path.read_bytes())
    resumed(new / 'iter_2.pth', new, 4, override=False, checkpoint=BEST, scores=(0.2, 0.9)).train()
    assert best_of(old) == ['best_tiny_acc_iter_2.pth']
    assert best_of(new) == ['best_tiny_acc_iter_4.pth']


@pytest.mark.parametrize('kind', [Runner, FlexibleRunner])
def test_a_checkpoint_that_is_saved_again_after_a_validation_keeps_its_iteration(tmp_path, kind):
    """CheckpointHook saves the last checkpoint again when a validation was the best."""
    options = dict(kind=kind, checkpoint=BEST, scores=(0.1, 0.5), schedules=copy.deepcopy(COSINE))
    build_runner(tmp_path / 'old', 2, **copy.deepcopy(options)).train()
    assert saved(tmp_path / 'old/iter_2.pth')['meta']['iter'] == 2
    assert saved(tmp_path / 'old/best_tiny_acc_iter_2.pth')['meta']['iter'] == 2
    fresh, rates = Rates(), Rates()
    build_runner(tmp_path / 'fresh', 4, hooks=(fresh,), schedules=copy.deepcopy(COSINE)).train()
    for name in ('iter_2.pth', 'best_tiny_acc_iter_2.pth'):
        resumed(tmp_path / 'old' / name, tmp_path / name, 4, hooks=(rates,), **copy.deepcopy(options)).train()
        assert rates.rates == {step: fresh.rates[step] for step in (3, 4)}


def test_a_rollback_keeps_the_new_schedule(tmp_path):
    """It may load a checkpoint that was written before the resume, with the old schedule."""

    class GoBack(Hook):
        priority = 'VERY_LOW'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 4 and not gone:
                gone.append(True)
                restore(runner, str(tmp_path / 'old/iter_2.pth'))

    gone, fresh, rates = [], Rates(), Rates()
    new = [dict(type='CosineAnnealingLR', by_epoch=False, T_max=10)]
    build_runner(tmp_path / 'old', 2, schedules=copy.deepcopy(COSINE)).train()
    build_runner(tmp_path / 'fresh', 6, hooks=(fresh,), schedules=copy.deepcopy(new)).train()
    resumed(tmp_path / 'old/iter_2.pth', tmp_path / 'new', 6, hooks=(rates, GoBack()), schedules=new).train()
    assert gone
    # the iteration that is interrupted runs as iteration 3
    assert all(rates.rates[step] == fresh.rates[step] for step in (3, 4, 5, 6))


@pytest.mark.parametrize('steps, fails', [(3, False), (2, True)])
def test_one_cycle_fails_after_its_last_step(tmp_path, steps, fails):
    """What the check of the config says about ``total_steps`` is what mmengine does."""
    schedules = [dict(type='OneCycleLR', eta_max=0.1, by_epoch=False, total_steps=steps)]
    runner = build_runner(tmp_path, 4, schedules=schedules)
    if fails:
        with pytest.raises(ValueError, match='Tried to step'):
            runner.train()
    else:
        runner.train()
