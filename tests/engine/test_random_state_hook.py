# Copyright (c) addp_mm contributors. Apache-2.0.
"""RandomStateHook with checkpoints without its state, and with other data or batches."""

import pytest
import torch
from helpers.tiny_pretraining import SeededNoise, build_runner
from mmengine.hooks import Hook

from addp_mm.engine.hooks import RandomStateHook, ResumeError


def runner_of(work_dir, sampler='addp_mm.ResumableInfiniteSampler', batch_size=4, length=16, state=True, **settings):
    runner = build_runner(work_dir, **settings)
    runner._train_dataloader.update(batch_size=batch_size, sampler=dict(type=sampler), dataset=SeededNoise(length))
    if not state:
        runner._hooks = [hook for hook in runner.hooks if not isinstance(hook, RandomStateHook)]
    return runner


def test_a_checkpoint_without_it_is_refused_if_the_sampler_needs_a_position(tmp_path):
    runner_of(tmp_path, state=False, max_iters=2).train()
    with pytest.raises(ResumeError, match='written without RandomStateHook: .*default_hooks.random_state=None'):
        runner_of(tmp_path, resume=True).train()
    # weights only are accepted
    runner_of(tmp_path / 'other', load_from=str(tmp_path / 'iter_2.pth'), max_iters=2).train()


@pytest.mark.parametrize('by_epoch', [False, True])
def test_a_checkpoint_without_it_is_a_warning_with_other_samplers(tmp_path, by_epoch, capsys):
    kind = dict(sampler='DefaultSampler' if by_epoch else 'InfiniteSampler', by_epoch=by_epoch, checkpoint_interval=1)
    runner_of(tmp_path, state=False, max_iters=1, **kind).train()
    runner_of(tmp_path, max_iters=2, resume=True, **kind).train()
    assert 'will not equal an uninterrupted one' in capsys.readouterr().out
    (saved,) = tmp_path.glob('*_2.pth')
    batches = 0 if by_epoch else 2  # of the current epoch, or of the whole training
    expected = dict(run_seed=0, size=16, seed=0, batches=batches, batch=4)
    assert torch.load(saved, weights_only=False)['random_state'] == expected


def test_another_batch_size_continues_after_the_same_sample(tmp_path):
    runner_of(tmp_path, max_iters=2).train()
    state = torch.load(tmp_path / 'iter_2.pth', weights_only=False)['random_state']
    assert state == dict(run_seed=0, seed=0, size=16, trained=8)
    resumed = runner_of(tmp_path, resume=True, batch_size=2, max_iters=4)
    resumed.train()
    sampler = resumed.train_loop.dataloader.sampler
    assert (sampler.seed, sampler.start) == (0, 8)
    state = torch.load(tmp_path / 'iter_4.pth', weights_only=False)['random_state']
    assert state == dict(run_seed=0, seed=0, size=16, trained=12)
    # resumed again, with other images
    runner_of(tmp_path, resume=True, length=20, max_iters=6).train()
    state = torch.load(tmp_path / 'iter_6.pth', weights_only=False)['random_state']
    assert state == dict(run_seed=0, seed=0, size=20, trained=20)


@pytest.mark.parametrize('sampler', ['addp_mm.ResumableInfiniteSampler', 'InfiniteSampler', 'DefaultSampler'])
def test_another_number_of_samples_is_a_warning(tmp_path, sampler, capsys):
    kind = dict(sampler=sampler, by_epoch=sampler == 'DefaultSampler', checkpoint_interval=1)
    runner_of(tmp_path, max_iters=1, **kind).train()
    runner_of(tmp_path, max_iters=2, resume=True, length=15, **kind).train()
    assert 'the dataset had 16 samples and now has 15' in capsys.readouterr().out


@pytest.mark.parametrize('ours_first', [False, True])
def test_another_sampler_or_batch_is_a_warning(tmp_path, ours_first, capsys):
    samplers = ['InfiniteSampler', 'addp_mm.ResumableInfiniteSampler']
    first, then = reversed(samplers) if ours_first else samplers
    runner_of(tmp_path, sampler=first, max_iters=2).train()
    resumed = runner_of(tmp_path, sampler=then, resume=True, max_iters=4)
    resumed.train()
    assert 'it had another sampler' in capsys.readouterr().out
    if not ours_first:
        assert resumed.train_loop.dataloader.sampler.start == 8
    runner_of(tmp_path, sampler=then, resume=True, batch_size=2, max_iters=6).train()
    assert ('a step had 4 samples of all ranks and now has 2' in capsys.readouterr().out) == ours_first


def test_draws_of_an_iteration_do_not_depend_on_what_was_drawn_before(tmp_path):
    runner = runner_of(tmp_path, max_iters=2)
    runner.train()
    hook = next(hook for hook in runner.hooks if isinstance(hook, RandomStateHook))
    hook.before_train_iter(runner, 0)
    expected = torch.rand(3)
    torch.rand(100)
    hook.before_train_iter(runner, 0)
    assert torch.equal(torch.rand(3), expected)
    runner.train_loop._iter += 1
    hook.before_train_iter(runner, 1)
    assert not torch.equal(torch.rand(3), expected)


class Draws(Hook):
    """Records a random number of each iteration."""

    priority = 'LOW'

    def __init__(self):
        self.numbers = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.numbers.append(torch.rand(()).item())


@pytest.mark.parametrize('by_epoch', [False, True])
def test_a_run_without_a_seed_resumes_with_the_seed_that_it_drew(tmp_path, by_epoch):
    numbers = []
    for max_iters in (1, 2):
        draws = Draws()
        runner = runner_of(
            tmp_path,
            sampler='DefaultSampler' if by_epoch else 'InfiniteSampler',
            by_epoch=by_epoch,
            checkpoint_interval=1,
            max_iters=max_iters,
            extra_hooks=[draws],
            resume=max_iters > 1,
            seed=None,
        )
        runner.train()
        numbers.append(draws.numbers)
    states = [torch.load(path, weights_only=False)['random_state'] for path in sorted(tmp_path.glob('*_[12].pth'))]
    assert states[0]['seed'] == states[1]['seed']
    assert states[0]['run_seed'] == states[1]['run_seed']
    assert not set(numbers[0]) & set(numbers[1])
