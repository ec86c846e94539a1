# Copyright (c) addp_mm contributors. Apache-2.0.
"""A training that fails goes back to the last good checkpoint, or stops."""

import math

import pytest
import torch
from helpers.failing import Poison, Recorder
from helpers.kill_at import BreakFiles
from helpers.tiny_pretraining import build_runner as build
from mmengine.hooks import Hook

from addp_mm.config.config_file import ConfigError
from addp_mm.engine.hooks import TrainingCollapsedError

BACK = dict(policy='rollback', lr_factor=1.0)


def build_runner(work_dir, guard, **settings):
    return build(work_dir, guard=guard, **settings)


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


def test_a_non_finite_loss_stops_and_names_iteration_level_and_checkpoint(tmp_path):
    recorder = Recorder()
    runner = build_runner(tmp_path / 'run', {}, extra_hooks=[Poison(3), recorder])
    with pytest.raises(TrainingCollapsedError, match='iteration 4 .*mask_ratio .*iter_2.pth') as error:
        runner.train()
    assert f'{recorder.levels[3][0][0].ratio:.4g}' in str(error.value)
    assert not (tmp_path / 'run' / 'iter_4.pth').exists()


def test_rollback_restores_model_optimizer_schedule_and_random_numbers(tmp_path):
    recorder = Recorder()
    poison = Poison(3)
    runner = build_runner(tmp_path / 'run', BACK, extra_hooks=[poison, recorder], max_iters=6)
    runner.train()
    assert not poison.iterations
    assert runner.iter == 6
    # iterations 2 and 3 (from 0) ran twice with the same levels, and the failed one was not
    # recorded as done
    assert [len(recorder.levels[i]) for i in range(6)] == [1, 1, 2, 2, 1, 1]
    for i in (2, 3):
        assert recorder.levels[i][0] == recorder.levels[i][1]
    plain = Recorder()
    build_runner(tmp_path / 'plain', {}, extra_hooks=[plain]).train()
    assert recorder.learning_rates == plain.learning_rates
    assert {i: drawn[-1] for i, drawn in recorder.levels.items()} == {i: drawn[0] for i, drawn in plain.levels.items()}
    final = torch.load(tmp_path / 'run' / 'iter_6.pth', weights_only=False)
    assert all(value.isfinite().all() for value in final['state_dict'].values() if value.is_floating_point())
    assert all(state['step'] == 6 for state in final['optimizer']['state'].values())
    assert final['training_guard']['rollbacks'] == 1


def test_rollback_skips_broken_checkpoints(tmp_path):
    class Damage(Hook):
        """Saves NaN weights as the newest checkpoint, and truncates the one before."""

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 7 and runner.model.head.fc.weight.isfinite().all() and not damaged:
                damaged.append(True)
                newest, middle = (tmp_path / 'run' / f'iter_{i}.pth' for i in (6, 4))
                saved = torch.load(newest, weights_only=False)
                saved['state_dict']['head.fc.weight'].fill_(math.nan)
                torch.save(saved, newest)
                middle.write_bytes(middle.read_bytes()[:1000])

    damaged = []
    recorder = Recorder()
    runner = build_runner(tmp_path / 'run', BACK, extra_hooks=[Damage(), Poison(7), recorder], max_iters=8)
    runner.train()
    assert [len(recorder.levels[i]) for i in range(8)] == [1, 1, 2, 2, 2, 2, 2, 2]
    # later checkpoints were written again, and the newest three are kept
    assert sorted(path.name for path in (tmp_path / 'run').glob('*.pth')) == [f'iter_{i}.pth' for i in (4, 6, 8)]
    assert all(weights(path)['head.fc.weight'].isfinite().all() for path in (tmp_path / 'run').glob('*.pth'))


class InfiniteStep(Hook):
    """Sets a weight to infinity after the loss of an iteration (from 1), once."""

    priority = 'HIGHEST'

    def __init__(self, iteration):
        self.iterations = {iteration}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 in self.iterations:
            self.iterations.remove(runner.iter + 1)
            torch.nn.init.constant_(runner.model.head.fc.bias, math.inf)


@pytest.mark.parametrize('iteration', [4, 6])  # an iteration that is saved, and the last one
def test_weights_that_a_step_made_infinite_are_not_saved(tmp_path, iteration):
    runner = build_runner(tmp_path / 'stop', {}, extra_hooks=[InfiniteStep(iteration)])
    with pytest.raises(
        TrainingCollapsedError,
        match=rf'iteration {iteration} .*head.fc.bias is not finite.*'
        rf'iter_{iteration - 2}.pth: resume from it',
    ):
        runner.train()
    assert not (tmp_path / 'stop' / f'iter_{iteration}.pth').exists()
    runner = build_runner(tmp_path / 'back', BACK, extra_hooks=[InfiniteStep(iteration)])
    runner.train()
    assert runner.iter == 6
    assert all(
        value.isfinite().all()
        for value in weights(tmp_path / 'back' / 'iter_6.pth').values()
        if value.is_floating_point()
    )


def test_checkpoints_of_another_run_in_the_folder_are_not_used(tmp_path):
    build_runner(tmp_path / 'run', {}).train()
    options = BACK
    with pytest.raises(TrainingCollapsedError, match='iteration 2 .*no good checkpoint yet'):
        build_runner(tmp_path / 'run', options, checkpoint_interval=3, extra_hooks=[Poison(1)]).train()
    with pytest.raises(TrainingCollapsedError, match='iteration 2 .*has no good checkpoint of this run: restart'):
        build_runner(tmp_path / 'run', {}, checkpoint_interval=3, extra_hooks=[Poison(1)]).train()
    # resumed in the middle: later checkpoints belong to another run, earlier ones to this run
    recorder = Recorder()
    runner = build_runner(
        tmp_path / 'run',
        options,
        checkpoint_interval=8,
        max_iters=8,
        resume=True,
        load_from=str(tmp_path / 'run' / 'iter_4.pth'),
        extra_hooks=[Poison(5), recorder],
    )
    runner.train()
    assert [len(recorder.levels[i]) for i in range(4, 8)] == [2, 2, 1, 1]
    recorder = Recorder()
    runner = build_runner(
        tmp_path / 'other',
        options,
        checkpoint_interval=8,
        resume=True,
        load_from=str(tmp_path / 'run' / 'iter_4.pth'),
        extra_hooks=[Poison(5), recorder],
    )
    runner.train()
    assert [len(recorder.levels[i]) for i in (4, 5)] == [2, 2]


@pytest.mark.parametrize('checkpoint', [dict(filename_tmpl='iter_{:06d}.pth'), dict(out_dir='elsewhere')])
def test_checkpoints_of_other_names_and_folders_are_found(tmp_path, checkpoint):
    if 'out_dir' in checkpoint:
        checkpoint = dict(out_dir=str(tmp_path / 'elsewhere'))
    with pytest.raises(TrainingCollapsedError, match='no good checkpoint yet'):
        build_runner(tmp_path / 'none', BACK, checkpoint=checkpoint, extra_hooks=[Poison(1)]).train()
    runner = build_runner(tmp_path / 'run', BACK, checkpoint=checkpoint, extra_hooks=[Poison(3)])
    runner.train()
    assert runner.iter == 6


def test_rollback_leaves_the_epoch(tmp_path):
    recorder = Recorder()
    runner = build_runner(
        tmp_path / 'run', BACK, by_epoch=True, checkpoint_interval=1, max_iters=3, extra_hooks=[Poison(6), recorder]
    )
    runner.train()
    assert (runner.epoch, runner.iter) == (3, 12)
    assert [len(recorder.levels[i]) for i in range(12)] == [1] * 4 + [2] * 3 + [1] * 5


def test_rollbacks_are_limited(tmp_path):
    runner = build_runner(
        tmp_path / 'run', dict(BACK, max_rollbacks=2), checkpoint_interval=1, extra_hooks=[Poison(3, 4, 5)]
    )
    with pytest.raises(TrainingCollapsedError, match='2 rollback.* with a lower learning rate or stronger') as raised:
        runner.train()
    assert 'policy' not in str(raised.value)  # which is already on


def test_failure_before_the_first_checkpoint_stops(tmp_path):
    runner = build_runner(tmp_path / 'run', BACK, extra_hooks=[Poison(1)])
    with pytest.raises(TrainingCollapsedError, match='no good checkpoint yet'):
        runner.train()


def test_collapse_of_the_running_mean_stops(tmp_path):
    runner = build_runner(tmp_path / 'run', dict(collapse=dict(floor=100.0, window=2)))
    with pytest.raises(TrainingCollapsedError, match='iteration 2 .*below the floor 100'):
        runner.train()


def test_rollback_without_checkpoints_is_refused(tmp_path):
    runner = build_runner(tmp_path / 'run', BACK)
    runner._hooks = [hook for hook in runner.hooks if type(hook).__name__ != 'CheckpointHook']
    with pytest.raises(ValueError, match='CheckpointHook'):
        runner.train()


def test_rollback_into_the_middle_of_an_epoch_is_refused(tmp_path):
    recorder = Recorder()
    settings = dict(by_epoch=True, max_iters=2, extra_hooks=[recorder], checkpoint=dict(by_epoch=False))
    with pytest.raises(ConfigError, match='checkpoint.by_epoch=True, or train by iterations'):
        build_runner(tmp_path / 'back', BACK, **settings).train()
    assert not recorder.levels
    build_runner(tmp_path / 'stop', dict(policy='stop'), **settings).train()
    assert sorted(recorder.levels) == list(range(8))


class Batches(Hook):
    """Records number, sum of the images and a random number of each iteration, and saves at 6."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.numbers, self.seen = [], {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.numbers.append(batch_idx)
        images = torch.stack(list(data_batch['inputs']))
        seen = int((images.long().flatten(1).sum(1) * torch.arange(1, 5)).sum()), torch.rand(()).item()
        self.seen.setdefault(runner.iter, []).append(seen)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 5 and hasattr(runner.train_loop, 'run_epoch'):
            counts = dict(epoch=runner.epoch, iter=runner.iter + 1)
            runner.save_checkpoint(runner.work_dir, 'middle.pth', meta=counts, by_epoch=False)


@pytest.mark.parametrize('by_epoch', [False, True])
def test_a_resume_after_a_rollback_uses_the_batches_of_the_uninterrupted_training(tmp_path, by_epoch):
    settings = dict(by_epoch=by_epoch, checkpoint_interval=1 if by_epoch else 2, max_iters=3 if by_epoch else 8)
    batches = Batches()
    runner = build_runner(tmp_path / 'run', BACK, extra_hooks=[Poison(7 if by_epoch else 3), batches], **settings)
    runner._train_dataloader['sampler']['shuffle'] = by_epoch
    runner.train()
    whole = weights(tmp_path / 'run' / ('epoch_3.pth' if by_epoch else 'iter_8.pth'))
    if by_epoch:  # another order and other random numbers
        assert all(len(set(first)) == 2 for first in zip(*batches.seen[5], strict=True))
        starts = dict(middle=6, epoch_2=8)
    else:  # the next data with the numbers of the first try
        (first, number), (second, again) = batches.seen[2]
        assert (first == second, number == again) == (False, True)
        # a pass has four batches
        assert [batches.seen[i][-1][0] for i in (2, 3, 4)] == [batches.seen[i][0][0] for i in (0, 1, 2)]
        starts = dict(iter_4=4, iter_6=6)
    for name, start in starts.items():
        recorded = Batches()
        resumed = build_runner(
            tmp_path / name,
            BACK,
            extra_hooks=[recorded],
            resume=True,
            load_from=str(tmp_path / 'run' / f'{name}.pth'),
            **settings,
        )
        resumed._train_dataloader['sampler']['shuffle'] = by_epoch
        resumed.train()
        assert recorded.seen == {i: seen[-1:] for i, seen in batches.seen.items() if i >= start}, name
        end = weights(tmp_path / name / ('epoch_3.pth' if by_epoch else 'iter_8.pth'))
        assert all(torch.equal(end[key], value) for key, value in whole.items())


@pytest.mark.parametrize('folder, repeated', [('run', [0, 1, 2, 3]), ('other', [2, 3])])
def test_a_rollback_in_an_epoch_that_was_resumed_in_its_middle(tmp_path, folder, repeated):
    settings = dict(by_epoch=True, checkpoint_interval=1, max_iters=3)
    build_runner(tmp_path / 'run', BACK, extra_hooks=[Batches()], **settings).train()
    batches, middle = Batches(), str(tmp_path / 'run/middle.pth')
    hooks = [Poison(7), batches]
    runner = build_runner(tmp_path / folder, BACK, extra_hooks=hooks, resume=True, load_from=middle, **settings)
    runner.train()
    assert batches.numbers == [2, 3, *repeated, 0, 1, 2, 3]
    assert (runner.epoch, runner.iter) == (3, 12)


def test_a_resumed_run_remembers_from_which_checkpoints_it_failed(tmp_path):
    build_runner(tmp_path, BACK, checkpoint_interval=1, extra_hooks=[Poison(3)], max_iters=4).train()
    last, recorder = tmp_path / 'iter_4.pth', Recorder()
    hooks = [BreakFiles(4, [last]), Poison(4), recorder]
    build_runner(tmp_path, BACK, checkpoint_interval=1, resume=True, load_from=str(last), extra_hooks=hooks).train()
    assert [len(recorder.levels.get(i, ())) for i in range(6)] == [0, 0, 1, 1, 2, 1]  # from 2, not from 3
