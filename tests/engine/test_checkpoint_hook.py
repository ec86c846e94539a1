# Copyright (c) addp_mm contributors. Apache-2.0.
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from helpers.tiny_training import build_runner
from mmengine.hooks import Hook

from addp_mm.checkpoints.atomic_write import FileWriteError
from addp_mm.checkpoints.reading import damage, load_checkpoint_file
from addp_mm.engine.hooks import CheckpointHook, checkpoint_hook

OURS = dict(type='addp_mm.CheckpointHook')


def names(folder):
    return sorted(
        path.name for path in Path(folder).iterdir() if path.suffix == '.pth' or path.name == 'last_checkpoint'
    )


def last(folder):
    return Path((folder / 'last_checkpoint').read_text()).name


@pytest.fixture
def failing(monkeypatch):
    """Make the writes of some checkpoints fail: ``failing('iter_4.pth')``."""

    def fail_at(name, error=None):
        write = checkpoint_hook.write_checkpoint

        def failing_write(content, path, *remedy):
            if Path(path).name == name:
                raise error or FileWriteError(f'{path} cannot be written (No space left on device)')
            write(content, path, *remedy)

        monkeypatch.setattr(checkpoint_hook, 'write_checkpoint', failing_write)

    return fail_at


@pytest.mark.parametrize('background', [False, True])
def test_old_checkpoints_are_deleted_after_the_new_one_is_complete(tmp_path, monkeypatch, background):
    write, before = checkpoint_hook.write_checkpoint, []

    def watched(content, path, *remedy):
        before.append((Path(path).name, [name for name in names(tmp_path) if name != 'last_checkpoint']))
        write(content, path, *remedy)

    monkeypatch.setattr(checkpoint_hook, 'write_checkpoint', watched)
    runner = build_runner(
        tmp_path,
        6,
        checkpoint=dict(
            OURS, interval=2, max_keep_ckpts=1, background=background, save_best='tiny/acc', rule='greater'
        ),
        scores=(0.1, 0.2, 0.05, 0.3, 0.0, 0.0),
    )
    runner.train()
    assert before == [
        ('best_tiny_acc_iter_1.pth', []),
        ('iter_2.pth', ['best_tiny_acc_iter_1.pth']),
        ('best_tiny_acc_iter_2.pth', ['best_tiny_acc_iter_1.pth', 'iter_2.pth']),
        ('iter_2.pth', ['best_tiny_acc_iter_2.pth', 'iter_2.pth']),
        ('iter_4.pth', ['best_tiny_acc_iter_2.pth', 'iter_2.pth']),
        ('best_tiny_acc_iter_4.pth', ['best_tiny_acc_iter_2.pth', 'iter_4.pth']),
        ('iter_4.pth', ['best_tiny_acc_iter_4.pth', 'iter_4.pth']),
        ('iter_6.pth', ['best_tiny_acc_iter_4.pth', 'iter_4.pth']),
    ]
    assert names(tmp_path) == ['best_tiny_acc_iter_4.pth', 'iter_6.pth', 'last_checkpoint']
    assert last(tmp_path) == 'iter_6.pth'


@pytest.mark.parametrize('by_epoch', [False, True])
def test_it_saves_what_mmengines_hook_saves(tmp_path, by_epoch):
    saved = {}
    for kind in ('CheckpointHook', 'addp_mm.CheckpointHook'):
        folder = tmp_path / kind
        checkpoint = dict(type=kind, interval=1, max_keep_ckpts=2, published_keys=['meta', 'state_dict'])
        build_runner(folder, 3, by_epoch=by_epoch, checkpoint=checkpoint).train()
        saved[kind] = [name for name in names(folder) if '-' not in name]
        name = 'epoch_3' if by_epoch else 'iter_3'
        content = load_checkpoint_file(folder / f'{name}.pth')
        saved[f'{kind} content'] = [content['state_dict']['head.bias'].item(), sorted(content), content['meta']['iter']]
        [published] = folder.glob(f'{name}-*.pth')
        assert damage(published) is None
    assert saved['CheckpointHook'] == saved['addp_mm.CheckpointHook']
    assert saved['CheckpointHook content'] == saved['addp_mm.CheckpointHook content']


@pytest.mark.parametrize('background', [False, True])
def test_nothing_is_deleted_if_the_new_checkpoint_cannot_be_written(tmp_path, failing, background):
    build_runner(tmp_path, 2, checkpoint=dict(OURS, max_keep_ckpts=2)).train()
    failing('iter_4.pth')
    runner = build_runner(tmp_path, 9, checkpoint=dict(OURS, max_keep_ckpts=1, background=background), resume=True)
    with pytest.raises(FileWriteError, match=r'iter_4\.pth cannot be written'):
        runner.train()
    # the older one was outdated since the resume, and waited for iter_3
    assert names(tmp_path) == ['iter_3.pth', 'last_checkpoint']
    assert last(tmp_path) == 'iter_3.pth'
    assert runner.iter <= 5
    assert damage(tmp_path / 'iter_3.pth') is None


def test_an_error_of_the_last_background_write_ends_the_training(tmp_path, failing):
    failing('iter_3.pth')
    runner = build_runner(tmp_path, 3, checkpoint=dict(OURS, background=True))
    with pytest.raises(FileWriteError, match=r'iter_3\.pth cannot'):
        runner.train()
    assert last(tmp_path) == 'iter_2.pth'


def test_in_the_background_the_training_continues_with_other_weights(tmp_path, monkeypatch):
    save, may_write, weights = torch.save, threading.Event(), {}

    def slow(content, file):
        assert may_write.wait(60)
        save(content, file)

    class Go(Hook):
        priority = 'LOWEST'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            weights[runner.iter + 1] = runner.model.head.bias.item()
            if runner.iter + 1 == 4:  # two iterations after the save began
                weights['while'] = names(tmp_path)
                may_write.set()

    monkeypatch.setattr(torch, 'save', slow)
    monkeypatch.setattr(CheckpointHook, 'every_n_train_iters', lambda self, runner, n, start=0: runner.iter == 1)
    build_runner(tmp_path, 5, checkpoint=dict(OURS, background=True, save_last=False), hooks=(Go(),)).train()
    assert weights['while'] == []
    saved = load_checkpoint_file(tmp_path / 'iter_2.pth')
    assert saved['state_dict']['head.bias'].item() == weights[2] != weights[4]
    assert saved['meta']['iter'] == 2
    assert last(tmp_path) == 'iter_2.pth'


def test_finish_waits_for_the_write(tmp_path, monkeypatch):
    save = torch.save

    def slow(content, file):
        threading.Event().wait(0.2)
        save(content, file)

    monkeypatch.setattr(torch, 'save', slow)
    seen = []

    class Finish(Hook):
        priority = 'LOWEST'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            next(one for one in runner.hooks if isinstance(one, CheckpointHook)).finish()
            seen.append(last(tmp_path))

    build_runner(tmp_path, 2, checkpoint=dict(OURS, background=True), hooks=(Finish(),)).train()
    assert seen == ['iter_1.pth', 'iter_2.pth']


def _train_and_be_killed(folder, background):
    save, count = torch.save, []

    def killed(content, file):
        count.append(1)
        save(content, file)
        if len(count) == 3:
            file.flush()
            file.truncate(3000)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = killed
    build_runner(folder, 9, checkpoint=dict(OURS, max_keep_ckpts=1, background=background)).train()


@pytest.mark.skipif(os.name != 'posix', reason='signals of POSIX')
@pytest.mark.parametrize('background', [False, True])
def test_killed_in_the_middle_of_a_write_the_last_complete_checkpoint_is_resumed(tmp_path, background):
    folder = tmp_path / 'run'
    process = multiprocessing.get_context('fork').Process(target=_train_and_be_killed, args=(folder, background))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    [partial] = folder.glob('.iter_3.pth.*.partial')
    assert names(folder) == ['iter_2.pth', 'last_checkpoint']
    assert last(folder) == 'iter_2.pth'
    build_runner(folder, 5, checkpoint=dict(OURS, max_keep_ckpts=1), resume=True).train()
    assert not partial.exists()
    assert names(folder) == ['iter_5.pth', 'last_checkpoint']
    whole = build_runner(tmp_path / 'whole', 5, checkpoint=dict(OURS))
    whole.train()
    resumed = load_checkpoint_file(folder / 'iter_5.pth')['state_dict']
    assert {name: value.shape for name, value in resumed.items()} == {
        name: value.shape for name, value in whole.model.state_dict().items()
    }
