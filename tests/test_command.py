# Copyright (c) addp_mm contributors. Apache-2.0.
"""The ``addp`` command, as ``python -m addp_mm``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from addp_mm.__main__ import CONVERTERS, OWN, TOOLS

ROOT = Path(__file__).parents[1]
CLASSIFIER = 'addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px'
REPORT = """
import sys
from addp_mm.__main__ import main
sys.argv = ['addp', *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    print('STATUS', stop.code, [name for name in ('torch', 'mmengine', 'cv2') if name in sys.modules])
"""


def addp(*arguments, cwd=None):
    command = [sys.executable, '-m', 'addp_mm', *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize(
    'command', [[], *([name] for name in [*TOOLS, *OWN]), *(['convert', kind] for kind in CONVERTERS)], ids=' '.join
)
def test_help_is_shown_without_heavy_imports(command):
    shown = subprocess.run([sys.executable, '-c', REPORT, *command, '--help'], capture_output=True, text=True)
    assert f'usage: {" ".join(["addp", *command])}' in shown.stdout, shown.stderr
    assert 'STATUS 0 []' in shown.stdout


def test_help_names_every_command():
    text = addp('--help').stdout
    assert not [name for name in [*TOOLS, *OWN] if f'\n  {name} ' not in text]
    text = addp('convert', '--help').stdout
    assert not [name for name in CONVERTERS if f'\n  {name} ' not in text]


def test_every_converter_is_a_kind():
    scripts = {f'model_converters/{path.name}' for path in (ROOT / 'tools/model_converters').glob('*.py')}
    assert {script for script, _ in CONVERTERS.values()} == scripts


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['trian'], 'addp: error: trian is unknown; did you mean train'),
        (['§'], 'addp: error: § is unknown; choose from train, test'),
        (['convert', 'vqgn'], 'addp convert: error: vqgn is unknown; did you mean vqgan?'),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest_ones(arguments, message):
    done = addp(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_no_command_shows_the_help_and_fails():
    done = addp()
    assert done.returncode == 2
    assert 'usage: addp COMMAND' in done.stdout


def test_list_shows_configs_with_their_entries_in_the_index():
    lines = addp('list', CLASSIFIER).stdout.splitlines()
    assert lines[0].split() == ['config', 'task', 'data', 'architecture', 'epochs', 'weights']
    assert lines[1].split() == [CLASSIFIER, 'classification', 'FashionScenes', 'ViT-nano/8', '-', '-']
    assert len(lines) == 4
    some = addp('list', 'MASK-RCNN_*1x*').stdout.splitlines()[1:-2]
    assert some
    assert all(line.startswith('mask-rcnn_') and '1x' in line for line in some)
    count = len([path for path in (ROOT / 'configs').glob('*/*.py') if path.parent.name != '_base_'])
    assert f'\n{count} configs.' in addp('list').stdout


@pytest.mark.parametrize('arguments', [('list',), ('--help',)])
def test_a_reader_that_stops_gets_no_traceback(arguments):
    command = [sys.executable, '-m', 'addp_mm', *arguments]
    read, write = os.pipe()
    os.close(read)  # as `addp list | head -1` does after the first line
    try:
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, '')


def test_list_without_a_match_names_near_ones():
    done = addp('list', 'nanoo')
    assert done.returncode == 1
    assert done.stderr == 'error: no shipped config matches nanoo; did you mean nano?\n'


@pytest.mark.parametrize('command', [[], ['run']], ids=['addp', 'addp run'])
def test_a_script_runs_as_the_interpreter_runs_it(tmp_path, command):
    (tmp_path / 'neighbour.py').write_text('word = "beside"')
    script = tmp_path / 'script.py'
    script.write_text('import sys, neighbour\nprint(__name__, sys.argv[1:], neighbour.word, "addp_mm" in sys.modules)')
    done = addp(*command, script, 'a', '--b', cwd=tmp_path)
    assert done.stdout.strip() == "__main__ ['a', '--b'] beside True", done.stderr


@pytest.mark.parametrize('command', [[], ['run']], ids=['addp', 'addp run'])
def test_a_missing_script_is_named(tmp_path, command):
    done = addp(*command, 'missing.py', cwd=tmp_path)
    assert done.returncode == 1
    assert 'no script at missing.py' in done.stderr


def test_train_names_the_shipped_configs_nearest_to_a_misspelt_name(tmp_path):
    done = addp('train', CLASSIFIER.replace('300i', '200i'), cwd=tmp_path)
    assert done.returncode == 1
    assert f'did you mean cls/{CLASSIFIER}' in done.stderr
    assert not list(tmp_path.iterdir())
