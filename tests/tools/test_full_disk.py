# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/train.py on a disk that becomes full or read-only: one line, and nothing is lost."""

import os
import subprocess
from pathlib import Path

import pytest

from addp_mm.checkpoints.reading import damage

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not os.path.exists('/dev/full'), reason='Linux')]
CONFIG = """
_base_ = './tiny.py'
custom_imports = dict(imports=['helpers.full_disk'])
custom_hooks = [{hook}]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2, background={background}))
"""
RESUME = 'give the same command with --resume: it continues from the last complete checkpoint'


@pytest.fixture
def train(workplace, run_tool):
    """``train('name of the work dir', 'hook of the config', options…)``."""

    def run(work_dir, hook, *options, background=False):
        (workplace / 'full.py').write_text(CONFIG.format(hook=hook, background=background))
        return run_tool('train.py', 'full.py', '--work-dir', work_dir, *options)

    return run


def check(finished, folder: Path, named: str):
    assert finished.status == 1
    errors = [line for line in finished.output.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1, finished.output
    assert f'{named} cannot be written (' in errors[0]
    assert RESUME in errors[0]
    assert 'Traceback' not in finished.output
    assert 'Logging error' not in finished.output
    # iteration 5, counted from 0, is the first on the full disk
    assert (folder / 'last_checkpoint').read_text() == str(folder / 'iter_4.pth')
    assert sorted(path.name for path in folder.glob('*.pth')) == ['iter_2.pth', 'iter_4.pth']
    assert [damage(path) for path in folder.glob('*.pth')] == [None, None]
    assert list(folder.glob('.*.partial')) == []


def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_ones(workplace, train):
    folder = workplace / 'full'
    hook = "dict(type='FullDisk', iteration=5, room=50000, limit=True)"
    check(train(folder, hook, background=True), folder, 'iter_6.pth')
    finished = train(folder, '', '--resume')
    assert finished.status == 0, finished.output
    assert (folder / 'last_checkpoint').read_text() == str(folder / 'iter_8.pth')


@pytest.mark.parametrize(
    'pattern, named', [('*scalars.json', 'scalars.json'), ('*events*', 'events.out.tfevents'), ('*.log', '.log')]
)
def test_curves_that_cannot_be_written_end_the_training(workplace, train, pattern, named):
    folder = workplace / f'full_{named}'
    finished = train(folder, f"dict(type='FullFile', iteration=5, pattern={pattern!r})")
    assert 'cannot be written (No space left on device)' in finished.output, finished.output
    assert named in finished.output.partition(' cannot be written')[0].splitlines()[-1]
    assert 'Traceback' not in finished.output
    assert finished.status == 1
    assert damage(folder / 'iter_4.pth') is None


@pytest.fixture
def small_disk(tmp_path):
    """A disk of three megabytes."""
    mounted = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip('mounting is not allowed here')
    yield tmp_path
    subprocess.run(['umount', str(tmp_path)], check=False)


def test_a_small_disk_is_filled(small_disk, train):
    folder = small_disk / 'run'
    check(train(folder, "dict(type='FullDisk', iteration=5, room=40000)"), folder, 'iter_6.pth')


def test_the_disk_of_the_checkpoints_becomes_read_only(workplace, small_disk, train):
    hook = f"dict(type='ReadOnly', iteration=5, disk={str(small_disk)!r})"
    finished = train('read_only', hook, '--cfg-options', f'default_hooks.checkpoint.out_dir={small_disk}')
    folder = small_disk / 'read_only'
    assert finished.status == 1
    assert f'error: {folder}/iter_6.pth cannot be written (Read-only file system)' in finished.output
    assert 'Traceback' not in finished.output
    assert sorted(path.name for path in folder.iterdir()) == ['iter_2.pth', 'iter_4.pth']
    assert (workplace / 'read_only/last_checkpoint').read_text() == str(folder / 'iter_4.pth')
