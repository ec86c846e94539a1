# Copyright (c) addp_mm contributors. Apache-2.0.
"""A signal ends a training after it has saved, and the resume equals an uninterrupted training."""

import math
import os
import signal
from pathlib import Path

import pytest
import torch
from helpers.kill_at import KillAt
from helpers.tiny_training import build_runner
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import FlexibleRunner, Runner
from torch.utils.data import DataLoader
from torch.utils.data._utils import worker

from addp_mm.checkpoints.training_state import differences
from addp_mm.engine.hooks import (
    EarlyStoppingHook,
    PendingValidationHook,
    RandomStateHook,
    StopHook,
    TrainingCollapsedError,
)
from addp_mm.stop_signals import SIGNALS, TrainingStopped, keep_workers_running, signals

PLATEAU = [dict(type='ReduceOnPlateauLR', monitor='tiny/acc', rule='greater', factor=0.5, patience=0)]
SCORES = (0.5, 0.6, 0.4, 0.7, 0.3, 0.2, 0.1, 0.1, 0.0)


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    signals.is_handling, signals.received = False, None
    for number, handler in before.items():
        signal.signal(number, handler)


class ScoreOfIteration(Hook):
    """Replaces the metric by one that depends on the iteration only, as a real one does."""

    priority = 'HIGHEST'  # before the metric is noted

    def after_val_epoch(self, runner, metrics=None):
        metrics['tiny/acc'] = SCORES[runner.iter // 4]


def make(folder, *more, total=4, by_epoch=True, hooks=(), **settings):
    settings.setdefault('checkpoint', dict(interval=1, max_keep_ckpts=2))
    return build_runner(
        folder,
        total,
        by_epoch,
        hooks=(RandomStateHook(), *hooks, PendingValidationHook(), StopHook(), *more),
        scores=(0.0,),
        **settings,
    )


def stopped(runner, status):
    with pytest.raises(TrainingStopped) as stop:
        runner.train()
    assert stop.value.code == status
    signals.is_handling = False


def last(folder):
    return (Path(folder) / 'last_checkpoint').read_text()


def load(path):
    return torch.load(path, weights_only=False)


@pytest.mark.parametrize(
    'kind, name, status', [(Runner, 'SIGINT', 130), (Runner, 'SIGUSR1', 75), (FlexibleRunner, 'SIGTERM', 75)]
)
def test_it_stops_in_the_middle_of_an_epoch(tmp_path, capsys, kind, name, status):
    make(tmp_path / 'whole', kind=kind).train()
    parts = tmp_path / 'parts'
    stopped(make(parts, KillAt(5, name), kind=kind), status)
    assert last(parts) == str(parts / 'iter_6.pth')
    line = f'stopped by {name} after iteration 6; saved {parts}/iter_6.pth; the same command with --resume continues'
    assert capsys.readouterr().err.splitlines()[-1] == line
    resumed = make(parts, load_from=last(parts), resume=True, kind=kind)
    resumed.train()
    assert differences(load(tmp_path / 'whole/epoch_4.pth'), load(parts / 'epoch_4.pth')) == []
    assert sorted(path.name for path in parts.glob('*.pth')) == ['epoch_3.pth', 'epoch_4.pth']


@pytest.mark.parametrize('by_epoch, total, at', [(True, 4, 7), (False, 9, 2), (False, 9, 8)])
def test_it_stops_at_any_iteration_and_saves_once(tmp_path, by_epoch, total, at):
    settings = dict(total=total, by_epoch=by_epoch, hooks=(EMAHook(momentum=0.1),))
    make(tmp_path / 'whole', **settings).train()
    settings['hooks'] = (EMAHook(momentum=0.1),)
    stopped(make(tmp_path / 'parts', KillAt(at, 'SIGTERM'), **settings), 75)
    regular = f'epoch_{(at + 1) // 4}.pth' if by_epoch else f'iter_{at + 1}.pth'
    assert Path(last(tmp_path / 'parts')).name == regular
    settings['hooks'] = (EMAHook(momentum=0.1),)
    make(tmp_path / 'parts', load_from=last(tmp_path / 'parts'), resume=True, **settings).train()
    end = 'epoch_4.pth' if by_epoch else 'iter_9.pth'
    assert differences(load(tmp_path / 'whole' / end), load(tmp_path / 'parts' / end)) == []


class EndAfterSaving(Hook):
    """Ends the training within the validation of an iteration, at once; nothing more is saved."""

    priority = 'VERY_HIGH'

    def __init__(self, iteration):
        self.iteration = iteration

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration and batch_idx:
            raise ConnectionError


def hooks_of_scores(early=99):
    return (ScoreOfIteration(), EMAHook(momentum=0.1), EarlyStoppingHook('tiny/acc', patience=early, rule='greater'))


@pytest.mark.parametrize('by_epoch, at', [(True, 8), (True, 12), (True, 16), (False, 12)])  # 12 has the best score
@pytest.mark.parametrize('how', ['kill', 'SIGTERM'])
def test_a_validation_that_had_not_ended_is_run(tmp_path, by_epoch, at, how):
    settings = dict(by_epoch=by_epoch, total=4 if by_epoch else 16, schedules=PLATEAU)
    settings['checkpoint'] = dict(interval=1 if by_epoch else 4, save_best='tiny/acc', rule='greater', max_keep_ckpts=9)
    settings['val_interval'] = 1 if by_epoch else 4
    first = make(tmp_path / 'whole', hooks=hooks_of_scores(), **settings)
    first.train()
    end = EndAfterSaving(at) if how == 'kill' else KillAt(at, how, in_validation=True)
    runner = make(tmp_path / 'parts', end, hooks=hooks_of_scores(), **settings)
    with pytest.raises(ConnectionError if how == 'kill' else TrainingStopped):
        runner.train()
    signals.is_handling = False
    signals.received = None
    again = make(
        tmp_path / 'parts', hooks=hooks_of_scores(), load_from=last(tmp_path / 'parts'), resume=True, **settings
    )
    again.train()
    name = 'epoch_4.pth' if by_epoch else 'iter_16.pth'
    whole, parts = (load(tmp_path / folder / name) for folder in ('whole', 'parts'))
    assert differences(whole, parts) == []
    best = [sorted(path.name for path in (tmp_path / folder).glob('best*')) for folder in ('whole', 'parts')]
    assert best[0] == best[1]
    assert len(best[0]) == 1
    assert differences(*(load(tmp_path / folder / best[0][0]) for folder in ('whole', 'parts'))) == []
    assert again.message_hub.get_scalar('val/tiny/acc').data[0].tolist() == [SCORES[n] for n in range(1, 5)]
    assert first.optim_wrapper.get_lr() == again.optim_wrapper.get_lr()


def test_a_validation_is_not_run_twice_after_a_save(tmp_path):
    settings = dict(total=2, checkpoint=dict(interval=1, save_best='tiny/acc', rule='greater'))
    make(tmp_path, hooks=hooks_of_scores(), **settings).train()
    runner = make(tmp_path, hooks=hooks_of_scores(), load_from=str(tmp_path / 'epoch_1.pth'), resume=True, **settings)
    runner.train()  # the first epoch has the best score: it was saved again
    assert runner.message_hub.get_scalar('val/tiny/acc').data[0].tolist() == [SCORES[1], SCORES[2]]


def test_early_stopping_goes_on_to_wait(tmp_path):
    settings = dict(total=8, checkpoint=dict(interval=1, max_keep_ckpts=20))
    whole = make(tmp_path / 'whole', hooks=hooks_of_scores(early=2), **settings)
    whole.train()
    assert whole.epoch == 5  # the scores of 4 and 5 are not better than that of 3
    for start in (3, 4, 5):
        path = str(tmp_path / f'whole/epoch_{start}.pth')
        resumed = make(
            tmp_path / f'at_{start}', hooks=hooks_of_scores(early=2), load_from=path, resume=True, **settings
        )
        resumed.train()
        assert resumed.epoch == 5, start


@pytest.mark.parametrize('limits', [dict(stopping_threshold=0.65), dict()])
def test_a_stop_by_one_score_holds_after_a_resume(tmp_path, monkeypatch, limits):
    # the best score, or a non-finite one, of the third epoch
    monkeypatch.setitem(globals(), 'SCORES', (*SCORES[:3], SCORES[3] if limits else math.nan, *SCORES[4:]))

    def build(folder, **changed):
        hook = EarlyStoppingHook('tiny/acc', rule='greater', patience=9, **{**limits, **changed})
        hooks = (ScoreOfIteration(), EMAHook(momentum=0.1), hook)
        saves = dict(interval=1, save_best='tiny/acc', rule='greater')
        from_epoch = dict(load_from=str(tmp_path / 'whole/epoch_3.pth'), resume=True) if folder != 'whole' else {}
        return make(tmp_path / folder, hooks=hooks, total=5, checkpoint=saves, **from_epoch)

    runners = [build('whole'), build('again')]
    # a training whose limits have changed goes on
    runners.append(build('changed', **(dict(stopping_threshold=0.8) if limits else dict(check_finite=False))))
    for runner, epochs in zip(runners, (3, 3, 5), strict=True):
        runner.train()
        assert runner.epoch == epochs


class Infinite(Hook):
    """Sets a weight to infinity in an iteration, counted from 0."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 5:
            torch.nn.init.constant_(runner.model.head.bias, math.inf)


def test_weights_that_are_not_finite_are_not_saved_by_a_stop(tmp_path):
    runner = make(tmp_path, KillAt(5, 'SIGTERM'), Infinite())
    with pytest.raises(
        TrainingCollapsedError,
        match=r'^SIGTERM stops the training after iteration 6, and head.bias is not finite: .* not written\. '
        r'The last good checkpoint is \S+epoch_1\.pth: resume from it with a lower learning rate',
    ):
        runner.train()
    assert last(tmp_path) == str(tmp_path / 'epoch_1.pth')
    assert not (tmp_path / 'iter_6.pth').exists()


def test_a_signal_before_the_training_changes_nothing(tmp_path, capsys):
    class Early(Hook):
        def before_run(self, runner):
            with signals.handled(is_awaited=True):
                os.kill(os.getpid(), signal.SIGTERM)
            signals.is_handling = True  # the tool handles them

    stopped(make(tmp_path, Early()), 75)
    assert not list(tmp_path.glob('*.pth'))
    assert 'before iteration 1; nothing was changed; the same command' in capsys.readouterr().err


def test_a_training_that_ends_is_not_stopped(tmp_path):
    class Late(Hook):
        priority = 'VERY_HIGH'

        def after_train(self, runner):
            os.kill(os.getpid(), signal.SIGTERM)

    make(tmp_path, Late(), total=1).train()


def test_a_stop_within_an_optimizer_step_keeps_its_gradients(tmp_path):
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.05), accumulative_counts=3)
    settings = dict(
        total=9, by_epoch=False, optim_wrapper=wrapper, checkpoint=dict(type='addp_mm.CheckpointHook', interval=9)
    )
    make(tmp_path / 'whole', **settings).train()
    parts = tmp_path / 'parts'
    stopped(make(parts, KillAt(3, 'SIGTERM'), **settings), 75)
    assert Path(last(parts)).name == 'iter_4.pth'
    make(parts, load_from=last(parts), resume=True, **settings).train()
    assert differences(load(tmp_path / 'whole/iter_9.pth'), load(parts / 'iter_9.pth')) == []


def test_a_regular_checkpoint_stays_after_two_stops_in_its_validation(tmp_path):
    settings = dict(total=8, by_epoch=False, val_interval=4, checkpoint=dict(type='addp_mm.CheckpointHook', interval=4))
    stopped(make(tmp_path, KillAt(4, 'SIGTERM', in_validation=True), **settings), 75)
    resume = dict(load_from=last(tmp_path), resume=True, **settings)
    signals.received = None
    stopped(make(tmp_path, KillAt(4, 'SIGTERM', in_validation=True), **resume), 75)
    signals.received = None
    make(tmp_path, **resume).train()
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['iter_4.pth', 'iter_8.pth']


@pytest.mark.parametrize('number', SIGNALS)
def test_a_signal_to_the_whole_job_does_not_end_its_workers(monkeypatch, number):
    # it may come before the worker has run its first line
    start = worker._worker_loop

    def signalled(*args):
        os.kill(os.getpid(), number)
        start(*args)

    monkeypatch.setattr(worker, '_worker_loop', signalled)
    loader = DataLoader(torch.arange(4), num_workers=1, multiprocessing_context='fork')
    keep_workers_running(loader)
    assert len(list(loader)) == 4
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(SIGNALS)
