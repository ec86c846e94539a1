# Copyright (c) addp_mm contributors. Apache-2.0.
import errno
import os
import stat

import pytest
import torch
from safetensors import safe_open

from addp_mm.checkpoints.atomic_write import (
    FileWriteError,
    atomic_path,
    remove_partials,
    write_json,
    write_safetensors,
    write_text,
)
from addp_mm.checkpoints.reading import load_checkpoint_file


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / 'a.txt'
    write_text(path, 'old')

    def fail():
        with atomic_path(path) as partial:
            partial.write_text('half')
            raise OSError('disk')

    with pytest.raises(OSError, match='disk'):
        fail()
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_has_the_usual_permissions_and_its_folder_is_made(tmp_path):
    write_text(tmp_path / 'plain', '')
    usual = stat.S_IMODE((tmp_path / 'plain').stat().st_mode)
    path = tmp_path / 'new/folder/w.safetensors'
    write_safetensors(path, dict(w=torch.ones(2)), dict(made_by='a test'))
    assert stat.S_IMODE(path.stat().st_mode) == usual
    assert load_checkpoint_file(path)['meta'] == dict(made_by='a test')


def test_json_and_names_that_are_not_unicode(tmp_path):
    write_json(tmp_path / 'a.json', dict(a=1))
    assert (tmp_path / 'a.json').read_text() == '{\n  "a": 1\n}\n'
    write_text(tmp_path / 'b', 'caf\udce9')
    assert (tmp_path / 'b').read_text() == 'caf\\udce9'


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    path = tmp_path / 'a.json'
    with pytest.raises(FileWriteError, match=rf'^{path} cannot be written \(No space left on device\)\. All complete'):
        write_json(path, {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_named_and_an_error_of_another_file_stays(tmp_path):
    (tmp_path / 'a').mkdir()
    with pytest.raises(FileWriteError, match=r'a cannot be written \(Is a directory\)'):
        write_text(tmp_path / 'a', '')
    write_text(tmp_path / 'file', '')
    with pytest.raises(FileWriteError, match=r'file/b cannot be written \((Not a directory|File exists)\)'):
        write_text(tmp_path / 'file' / 'b', '')
    with pytest.raises(FileNotFoundError, match='input'), atomic_path(tmp_path / 'c'):
        (tmp_path / 'input').read_text()


def test_temporary_files_of_a_killed_process_are_removed(tmp_path):
    names = '.a.npz.0f.partial', '.b.png.0f.partial', 'c.partial', '.d'
    for name in names:
        (tmp_path / name).touch()
    remove_partials(tmp_path, 'b.png')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.a.npz.0f.partial', '.d', 'c.partial']
    remove_partials(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.d', 'c.partial']
    remove_partials(tmp_path / 'missing')


def test_equal_safetensors_files_have_equal_bytes(tmp_path):
    metadata = dict(zebra='é "quoted"', alpha='1', middle='\n')
    for number in range(8):
        write_safetensors(tmp_path / str(number), dict(b=torch.ones(3), a=torch.zeros(2, 2)), metadata)
    contents = {(tmp_path / str(number)).read_bytes() for number in range(8)}
    assert len(contents) == 1
    loaded = load_checkpoint_file(tmp_path / '0')['state_dict']
    assert loaded['b'].tolist() == [1.0, 1.0, 1.0]
    with safe_open(tmp_path / '0', framework='pt') as file:
        assert metadata.items() <= file.metadata().items()
