# Copyright (c) addp_mm contributors. Apache-2.0.
import errno
import hashlib
import importlib
import multiprocessing
import os
import signal
import threading

import mmengine.runner
import mmengine.runner.checkpoint
import mmengine.runner.runner
import pytest
import torch
from mmengine.fileio import LocalBackend

import addp_mm  # noqa: F401
from addp_mm.checkpoints import saving
from addp_mm.checkpoints.atomic_write import FileWriteError, remove_partials
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.reading import load_checkpoint_file

CONTENT = dict(state_dict=dict(w=torch.arange(5000.0)), meta=dict(iter=3))


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_mmengine_saves_with_our_function_everywhere():
    modules = [mmengine.runner, mmengine.runner.checkpoint, mmengine.runner.runner]
    modules.append(importlib.import_module('mmengine._strategy.deepspeed'))
    assert all(module.save_checkpoint is saving.save_checkpoint for module in modules)


def test_the_file_holds_the_content_and_its_bytes_do_not_depend_on_the_name(tmp_path):
    for name in ('a.pth', 'folder/b.pth'):
        saving.save_checkpoint(CONTENT, str(tmp_path / name))
    loaded = load_checkpoint_file(tmp_path / 'folder/b.pth')
    assert torch.equal(loaded['state_dict']['w'], CONTENT['state_dict']['w'])
    assert loaded['meta'] == CONTENT['meta']
    assert digest(tmp_path / 'a.pth') == digest(tmp_path / 'folder/b.pth')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.pth', 'folder']


def test_other_backends_keep_mmengines_way(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setitem(saving._mmengine, 'save_checkpoint', lambda *arguments: calls.append(arguments[1]))
    saving.save_checkpoint(CONTENT, 'pavi://model/a.pth')
    saving.save_checkpoint(CONTENT, 'http://host/a.pth')
    assert calls == ['pavi://model/a.pth', 'http://host/a.pth']
    saving.save_checkpoint(CONTENT, str(tmp_path / 'a.pth'), dict(backend='disk'))
    saving.save_checkpoint(CONTENT, str(tmp_path / 'b.pth'), None, dict(backend='local'))
    assert len(calls) == 2
    assert LocalBackend().exists(tmp_path / 'a.pth')
    assert LocalBackend().exists(tmp_path / 'b.pth')


class FullAfter:
    """A file on a disk with room for some bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        self.room -= len(memoryview(data).cast('B'))
        if self.room < 0:
            raise OSError(errno.ENOSPC, 'No space left on device')
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


@pytest.mark.parametrize('room', [0, 10, 9000])
def test_a_full_disk_leaves_the_earlier_file(tmp_path, monkeypatch, room):
    path = tmp_path / 'a.pth'
    saving.write_checkpoint(CONTENT, path)
    before = digest(path)
    opened = open

    def open_full(name, mode='r', *args, **kwargs):
        file = opened(name, mode, *args, **kwargs)
        return FullAfter(file, room) if mode == 'wb' else file

    monkeypatch.setattr(saving, 'open', open_full, raising=False)
    with pytest.raises(FileWriteError, match=r'a\.pth cannot be written \(No space left on device\)'):
        saving.write_checkpoint(CONTENT, path)
    assert digest(path) == before
    assert [path] == list(tmp_path.iterdir())


def test_what_differs_from_what_was_written_gets_no_name(tmp_path, monkeypatch):
    save = torch.save

    def save_wrongly(content, file):
        save(content, file)
        file.seek(5000)
        file.write(b'\x01\x02\x03')

    monkeypatch.setattr(torch, 'save', save_wrongly)
    with pytest.raises(CheckpointError, match=r'/a\.pth is damaged: its record archive/data/0.*disk.*again') as raised:
        saving.write_checkpoint(CONTENT, tmp_path / 'a.pth')
    assert 'partial' not in str(raised.value)
    assert 'download' not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_process_writes_one_checkpoint_at_a_time(tmp_path, monkeypatch):
    inside, most, save = [], [], torch.save

    def watched(content, file):
        inside.append(1)
        most.append(len(inside))
        save(content, file)
        inside.pop()

    monkeypatch.setattr(torch, 'save', watched)
    threads = [
        threading.Thread(target=saving.write_checkpoint, args=(CONTENT, tmp_path / f'{index}.pth'))
        for index in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def _save_and_be_killed(path):
    save = torch.save

    def killed(content, file):
        save(content, file)
        file.flush()
        file.truncate(9000)
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = killed
    saving.write_checkpoint(dict(w=torch.zeros(9000)), path)


@pytest.mark.skipif(os.name != 'posix', reason='signals of POSIX')
def test_killed_while_it_writes_the_earlier_file_stays(tmp_path):
    path = tmp_path / 'a.pth'
    saving.write_checkpoint(CONTENT, path)
    before = digest(path)
    process = multiprocessing.get_context('fork').Process(target=_save_and_be_killed, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert digest(path) == before
    assert len(list(tmp_path.iterdir())) == 2
    remove_partials(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
