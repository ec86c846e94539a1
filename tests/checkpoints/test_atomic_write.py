# Copyright (c) addp_mm contributors. Apache-2.0.
import stat

import pytest
import torch

from addp_mm.checkpoints.atomic_write import atomic_path, write_json, write_safetensors, write_text
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
