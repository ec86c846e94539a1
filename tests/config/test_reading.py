# Copyright (c) addp_mm contributors. Apache-2.0.
"""Mistakes in a config file are errors of one line that name the file and the line."""

import builtins
import sys
from pathlib import Path

import pytest

from addp_mm.config.config_file import load_config
from addp_mm.errors import ConfigError

READ_BASE = 'from mmengine.config import read_base\nwith read_base():\n    from .{} import *\n'
BASE = 'model = dict(type="A", n=1)\nlr = 2\n'


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    write('base.py', BASE)
    return write


@pytest.mark.parametrize(
    'name, content, phrases',
    [
        ('x.py', '_base_ = "./bsae.py"', ['x.py: its base', 'bsae.py does not exist; did you mean', 'base.py']),
        ('x.py', '_base_ = "./base"', ['x.py: its base', 'did you mean', 'base.py']),
        ('x.py', '_base_ = "."', ['x.py: its base', 'is a folder']),
        ('x.py', '_base_ = "mmdet::retinanet/typo.py"', ['x.py: ', 'typo.py']),
        ('x.py', '_base_ = "addp_mm::cls/typo.py"', ['x.py: addp_mm ships no config cls/typo']),
        ('x.py', '_base_ = ["./base.py", "./base.py"]', ['x.py: ', 'Duplicate key', "'model'"]),
        ('x.py', '_base_ = "./base.py"\nlr = dict(a=1)', ['x.py: ', 'lr is a dict', '_delete_=True']),
        ('x.py', '_base_ = "./base.py"\ny = {{_base_.yy}}', ["x.py: {{_base_…}} names 'yy'"]),
        ('x.py', '_base_ = "./base.py"\ny = _base_.yy', ['x.py, line 2: ', "'yy'"]),
        ('x.py', '_base_ = "./base.py"\ny = "{{$NOT_SET_AT_ALL:}}"', ['x.py: ', 'NOT_SET_AT_ALL']),
        ('x.py', 'a = 1\nmodel = dict(n=3', ["x.py, line 2: '(' was never closed"]),
        ('x.py', 'a = 1\nmodel = dict(n=b)', ["x.py, line 2: NameError: name 'b'"]),
        ('x.py', '', ['x.py is empty']),
        ('x.py', b'\xef\xbb\xbfmodel = dict()', ['x.py begins with a byte order mark']),
        ('x.py', b'# \xe4\nmodel = dict()', ['x.py is not UTF-8 text']),
        ('x.py', READ_BASE.format('bsae'), ['x.py: its base bsae.py does not exist; did you mean base.py']),
        ('x.py', READ_BASE.format('base') + 'y = zz', ["x.py, line 4: NameError: name 'zz'"]),
        ('x.py', 'with open("x") as f:\n    pass', ['x.py: ', 'read_base']),
        ('x.json', '{"a": 1,}', ['x.json: ', 'line 1']),
        ('x.yaml', 'a: [1\nb: 2\n', ['x.yaml: ', 'line 2']),
        ('x.py', 'custom_imports = dict(imports=["no_such.module"])', ['x.py: ', 'no_such.module', 'PYTHONPATH=.']),
        ('x.py', 'custom_imports = dict(import_=["x"])', ['x.py: custom_imports: ', 'import_']),
        ('x.py', 'custom_imports = dict(imports=["raises"])', ["AttributeError: 'int'", 'raises.py, line 2']),
    ],
)  # fmt: skip
def test_a_mistake_is_named(write, tmp_path, monkeypatch, name, content, phrases):
    write('raises.py', 'x = 1\nx.y')
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError) as error:
        load_config(write(name, content))
    message = str(error.value)
    assert '\n' not in message
    for phrase in phrases:
        assert phrase in message


@pytest.mark.parametrize('content', ['a = dict(', 'a = b'])
def test_the_file_of_a_mistake_is_named_not_the_one_that_inherits_from_it(write, content):
    write('wrong.py', content)
    write('between.py', '_base_ = "./wrong.py"')
    with pytest.raises(ConfigError, match=r'^config \S+/wrong\.py, line 1: '):
        load_config(write('child.py', '_base_ = "./between.py"'))


@pytest.mark.slow
def test_a_circle_is_shown(write):
    write('a.py', '_base_ = "./b.py"')
    write('b.py', '_base_ = "./a.py"')
    with pytest.raises(ConfigError, match=r'inherits from itself: \S+/(.)\.py -> \S+\.py -> \S+/\1\.py'):
        load_config('a.py')


def test_a_file_that_cannot_be_read_is_named(write, monkeypatch):
    name, opened = write('secret.py', BASE), builtins.open

    def refuse(file, *args, **kwargs):
        if Path(str(file)).name == 'secret.py':
            raise PermissionError(13, 'Permission denied', str(file))
        return opened(file, *args, **kwargs)

    monkeypatch.setattr(builtins, 'open', refuse)
    with pytest.raises(ConfigError, match=r'secret\.py cannot be read: Permission denied'):
        load_config(name)


@pytest.mark.parametrize('name', ['a.b-c d é.py', 'sub folder/x.py'])
@pytest.mark.parametrize(
    'content', ['_base_ = {base!r}\nmodel = dict(n=4)', '_base_ = {base!r}\r\nmodel = dict(n=4)\r\n']
)
def test_unusual_names_and_line_endings_work(write, tmp_path, name, content):
    cfg = load_config(write(name, content.format(base=str(tmp_path / 'base.py'))))
    assert (cfg.model.n, cfg.model.type, cfg.lr) == (4, 'A', 2)


def test_a_config_of_python_imports_works_with_options(write):
    cfg = load_config(write('x.py', READ_BASE.format('base') + 'model.update(dict(n=7))'), ['model.m=5', 'model.n=8'])
    assert cfg.model == dict(type='A', n=8, m=5)


@pytest.mark.parametrize('to_file', [True, False])
def test_a_link_works_with_the_bases_of_its_target(write, tmp_path, to_file):
    write('real/x.py', '_base_ = "../base.py"')
    (tmp_path / 'far/away').mkdir(parents=True)
    if to_file:
        link = tmp_path / 'far/away/mine.py'
        link.symlink_to(tmp_path / 'real/x.py')
    else:
        (tmp_path / 'far/away/folder').symlink_to(tmp_path / 'real')
        link = tmp_path / 'far/away/folder/x.py'
    cfg = load_config(str(link))
    assert (cfg.model.n, cfg.filename) == (1, str(link))
    # bases beside the link have priority, as in mmengine
    write('far/base.py', 'model = dict(n=9)')
    if to_file:
        assert load_config(str(link)).model.n == 9


def test_names_that_lead_nowhere(write, tmp_path):
    (tmp_path / 'dangling.py').symlink_to('gone.py')
    with pytest.raises(ConfigError, match=r'dangling\.py is a link to gone\.py, which does not exist'):
        load_config('dangling.py')
    with pytest.raises(ConfigError, match='the name of the file is empty'):
        load_config('')
    with pytest.raises(ConfigError, match='is a folder'):
        load_config('.')


def test_delete_without_anything_to_delete_is_removed(write, capsys):
    cfg = load_config(
        write('x.py', '_base_ = "./base.py"\nneck = dict(_delete_=True, type="B")\nmodel = dict(_delete_=True, n=2)')
    )
    assert (cfg.neck, cfg.model) == (dict(type='B'), dict(n=2))
    assert capsys.readouterr().err == 'warning: config x.py: no base has neck, so _delete_ has no effect there\n'


def test_modules_of_an_option_are_imported(write, tmp_path, monkeypatch):
    write('module_of_an_option.py', 'x = 1')
    monkeypatch.syspath_prepend(str(tmp_path))
    load_config('base.py', ['custom_imports=dict(imports=[module_of_an_option])'])
    assert sys.modules.pop('module_of_an_option').x == 1
