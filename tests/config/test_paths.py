# Copyright (c) addp_mm contributors. Apache-2.0.
"""Paths of the command line: checkpoints to read and files to write."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from addp_mm.checks.weights import require_checkpoint
from addp_mm.config.config_file import ConfigError
from addp_mm.config.paths import require_writable, require_writable_folder
from addp_mm.engine.device import choose_device
from addp_mm.engine.hooks.drawn_images_hook import image_name
from addp_mm.engine.runner_cfg import set_resume


@pytest.mark.parametrize(
    'name, words',
    [
        ('folder', 'is a folder. Give a file'),
        ('config.py/x.json', r'no file can be written in .*config\.py'),
        ('/proc/x.json', 'no file can be written in /proc'),
        ('/proc/new/x.json', 'no file can be written in /proc'),
    ],
)
def test_a_path_that_cannot_be_written_is_refused(tmp_path, name, words):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'config.py').touch()
    with pytest.raises(ConfigError, match=f'--out .*{words}'):
        require_writable(tmp_path / name, '--out')
    with pytest.raises(ConfigError, match='--show-dir x: no file can be written'):
        require_writable_folder(tmp_path / 'config.py', '--show-dir x')


def test_the_check_creates_nothing_and_names_a_new_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    require_writable('new/folder/x.json', '--out')
    words = '--out new/folder/x.json: the folder new/folder does not exist and will be made\n'
    assert capsys.readouterr().err == words
    require_writable_folder('other', '--show-dir')
    (tmp_path / 'there.json').touch()
    require_writable('there.json', '--out')
    assert capsys.readouterr().err == ''
    assert [path.name for path in tmp_path.iterdir()] == ['there.json']


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    path = tmp_path / 'vit.pth'
    torch.save({}, path)
    assert require_checkpoint('~/vit.pth') == str(path)
    assert require_checkpoint('hf://owner/name/~/vit.pth') == 'hf://owner/name/~/vit.pth'
    for resume, load_from in ((None, '~/vit.pth'), ('~/vit.pth', None)):
        cfg = Config(dict(load_from=load_from))
        set_resume(cfg, resume)
        assert cfg.load_from == str(path)


def resumed_from(folder: Path) -> str | None:
    cfg = Config(dict(work_dir=str(folder)))
    set_resume(cfg, 'auto')
    return cfg.get('load_from') and Path(cfg.load_from).name


@pytest.mark.parametrize(
    'named, found',
    [
        ('/old/folder/iter_9.pth', 'iter_9.pth'),
        ('/old/folder/best.pth', 'best.pth'),
        ('/old/folder/iter_3.pth', 'iter_10.pth'),
        ('', 'iter_10.pth'),
    ],
)
def test_a_moved_training_is_resumed(tmp_path, capsys, named, found):
    for name in ('iter_9.pth', 'iter_10.pth', 'best.pth', 'iter_11.pth.partial'):
        torch.save(dict(meta={}), tmp_path / name)
    (tmp_path / 'last_checkpoint').write_text(named)
    assert resumed_from(tmp_path) == found
    assert f'names {named or "nothing"}; training continues from {tmp_path / found}' in capsys.readouterr().out


def test_without_a_checkpoint_a_wrong_name_is_refused(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('')
    assert resumed_from(tmp_path) is None
    (tmp_path / 'last_checkpoint').write_text('/old/folder/iter_9.pth')
    with pytest.raises(ConfigError, match=r'--resume /old/folder/iter_9\.pth does not exist'):
        resumed_from(tmp_path)


@pytest.mark.parametrize('name', ['foo', 'meta', 'cuda:99'])
def test_a_missing_device_is_refused(name):
    with pytest.raises(ConfigError, match=f'--device {name}: this PyTorch cannot use the device here'):
        choose_device(name)


class Sample(SimpleNamespace):
    def __contains__(self, key):
        return hasattr(self, key)


@pytest.mark.parametrize(
    'path, root, name',
    [
        ('/data/val/cat/0.png', '/data', 'val/cat/0.png'),
        ('/data/val/cat/0.jpg', '/data/val', 'cat/0.jpg.png'),
        ('/other/0.png', '/data', 'other/0.png'),
        ('/data/0.png', None, 'data/0.png'),
        ('/data/0.png', '', 'data/0.png'),
    ],
)
def test_drawn_images_have_the_folders_of_the_originals(path, root, name):
    assert image_name(Sample(img_path=path, sample_idx=3), root) == Path(name)


def test_a_drawn_image_without_a_path_has_its_number():
    assert image_name(Sample(sample_idx=3), '/data') == Path('3.png')
