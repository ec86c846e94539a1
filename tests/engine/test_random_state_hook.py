# Copyright (c) addp_mm contributors. Apache-2.0.
"""What RandomStateHook refuses, and where it resumes when the batch size or the number of images changes."""

import pytest
import torch
from helpers.tiny_pretraining import SeededNoise, build_runner

from addp_mm.engine.hooks import RandomStateHook, ResumeError

HOOKS = [dict(type='addp_mm.GenerativePretrainHook', preview_interval=0), dict(type='addp_mm.RandomStateHook')]


def runner_of(work_dir, sampler='addp_mm.ResumableInfiniteSampler', batch_size=4, length=16, hooks=HOOKS, **settings):
    runner = build_runner(work_dir, custom_hooks=hooks, **settings)
    runner._train_dataloader.update(batch_size=batch_size, sampler=dict(type=sampler), dataset=SeededNoise(length))
    return runner


def test_it_needs_its_sampler_and_iterations(tmp_path):
    with pytest.raises(ResumeError, match=r'sampler=dict\(type=.addp_mm.ResumableInf.*got IterBasedTrainLoop and Inf'):
        runner_of(tmp_path / 'a', 'InfiniteSampler').train()
    with pytest.raises(ResumeError, match='by_epoch=False.*got EpochBasedTrainLoop'):
        runner_of(tmp_path / 'b', by_epoch=True).train()


def test_a_checkpoint_without_it_is_refused(tmp_path):
    runner_of(tmp_path, hooks=HOOKS[:1], max_iters=2).train()
    with pytest.raises(ResumeError, match='written without RandomStateHook'):
        runner_of(tmp_path, resume=True).train()
    # weights alone are welcome
    runner_of(tmp_path / 'other', load_from=str(tmp_path / 'iter_2.pth'), max_iters=2).train()


def test_another_batch_size_goes_on_after_the_same_sample(tmp_path):
    runner_of(tmp_path, max_iters=2).train()
    state = torch.load(tmp_path / 'iter_2.pth', weights_only=False)['random_state']
    assert state == dict(seed=0, size=16, trained=8)
    resumed = runner_of(tmp_path, resume=True, batch_size=2, max_iters=4)
    resumed.train()
    sampler = resumed.train_loop.dataloader.sampler
    assert (sampler.seed, sampler.start) == (0, 8)
    state = torch.load(tmp_path / 'iter_4.pth', weights_only=False)['random_state']
    assert state == dict(seed=0, size=16, trained=12)
    # resumed once more, with other images
    again = runner_of(tmp_path, resume=True, length=20, max_iters=6)
    again.train()
    assert torch.load(tmp_path / 'iter_6.pth', weights_only=False)['random_state'] == dict(seed=0, size=20, trained=20)


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
