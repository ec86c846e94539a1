# Copyright (c) addp_mm contributors. Apache-2.0.
"""Processes that torchrun or the Slurm script starts again continue by themselves, with the weights
of an uninterrupted run."""

import json
import random
from types import SimpleNamespace

import pytest
import torch
from helpers.two_trainings import launch_two, run_two, write_config
from mmengine.config import Config

from addp_mm.engine.restarts import resume_of_restart


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The folder of an uninterrupted training, and its last checkpoint."""
    folder = tmp_path_factory.mktemp('restarts')
    config = write_config(folder)
    for status, output, _ in run_two(folder, config, '--work-dir', folder / 'whole'):
        assert status == 0, output
    return folder, torch.load(folder / 'whole/iter_8.pth', weights_only=False)


@pytest.mark.slow
@pytest.mark.parametrize('kills', ['before the first checkpoint', 'later'])
def test_a_restarted_training_ends_with_the_weights_of_an_uninterrupted_one(whole, kills):
    folder, expected = whole
    # no seed, so that over many runs of the tests each iteration is tested
    at = random.SystemRandom().choice([0, 1, 2] if kills != 'later' else [3, 4, 5, 6, 7])
    print(f'rank 1 is killed in iteration {at} of 0 to 7')
    hook = dict(type='mmengine.Disturb', rank=1, iteration=at, how='SIGKILL')
    work_dir = folder / kills.replace(' ', '_')
    config = write_config(folder, hook, name=work_dir.name)
    status, output = launch_two(folder / f'{work_dir.name}.log', config, '--work-dir', work_dir, max_restarts=1)
    assert status == 0, output
    if at < 3:
        assert 'restart 1: the attempts before have written no checkpoint; training starts as before' in output
    else:
        assert f'restart 1: training continues from {work_dir}/iter_{at // 3 * 3}.pth' in output
    found = torch.load(work_dir / 'iter_8.pth', weights_only=False)
    assert_same(expected['state_dict'], found['state_dict'])
    for number, state in expected['optimizer']['state'].items():
        assert_same(state, found['optimizer']['state'][number])


@pytest.mark.slow
def test_a_preempted_training_continues_from_its_own_checkpoint(whole, monkeypatch):
    """Each attempt of tools/slurm_train.sh gets the same command line."""
    folder, expected = whole
    config = write_config(folder, dict(type='mmengine.Disturb', rank=1, iteration=4, how='SIGTERM'), name='preempted')
    arguments = (config, '--resume', folder / 'whole/iter_3.pth', '--work-dir', folder / 'preempted')
    monkeypatch.setenv('ADDP_MM_LAUNCH', 'slurm-7')
    for number, status in enumerate([75, 0]):
        monkeypatch.setenv('ADDP_MM_ATTEMPT', str(number))
        (folder / f'attempt_{number}').mkdir()
        ranks = run_two(folder / f'attempt_{number}', *arguments)
        assert [rank[0] for rank in ranks] == [status] * 2, ranks
    line = f'restart 1: training continues from {folder}/preempted/iter_5.pth'
    assert [output.count(line) for _, output, _ in ranks] == [1, 0]
    found = torch.load(folder / 'preempted/iter_8.pth', weights_only=False)
    assert_same(expected['state_dict'], found['state_dict'])


def assert_same(expected, found):
    assert expected.keys() == found.keys()
    assert [name for name, value in expected.items() if not torch.equal(value, found[name])] == []


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """Return what ``--resume`` is in an attempt of a run."""

    def resume(number, given=None, run='a', rank=0, restarts=3, **keys):
        monkeypatch.setenv('TORCHELASTIC_RUN_ID', run)
        monkeypatch.setenv('TORCHELASTIC_MAX_RESTARTS', str(restarts))
        monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', str(number))
        monkeypatch.setenv('RANK', str(rank))
        return resume_of_restart(Config(dict(work_dir=str(tmp_path), **keys)), given)

    def save(name):
        torch.save(dict(number=random.random()), tmp_path / name)
        (tmp_path / 'last_checkpoint').write_text(str(tmp_path / name))
        return str(tmp_path / name)

    return SimpleNamespace(resume=resume, save=save, folder=tmp_path)


def test_the_first_attempt_does_what_the_command_line_says(attempt):
    attempt.save('iter_3.pth')
    for given in (None, 'auto', 'other.pth'):
        assert attempt.resume(0, given) == given
    assert attempt.resume(0, restarts=0) is None
    assert attempt.resume(1, restarts=0) is None


def test_a_later_attempt_continues_from_what_the_earlier_ones_have_written(attempt, capsys):
    attempt.resume(0)
    assert attempt.resume(1) is None
    assert 'have written no checkpoint' in capsys.readouterr().out
    path = attempt.save('iter_3.pth')
    assert attempt.resume(2) == attempt.resume(2, rank=1) == path
    assert f'restart 2: training continues from {path}' in capsys.readouterr().out


def test_checkpoints_of_an_earlier_training_are_not_continued(attempt):
    old = attempt.save('iter_6.pth')
    attempt.resume(0)
    assert attempt.resume(1) is None
    assert attempt.resume(1, 'other.pth') == 'other.pth'
    new = attempt.save('iter_3.pth')
    assert attempt.resume(2) == new
    # the same name again, of another run
    attempt.resume(0, run='b')
    assert attempt.resume(1, run='b') is None
    attempt.save('iter_6.pth')
    assert attempt.resume(1, run='b') == old


@pytest.mark.parametrize('given, keys', [('auto', {}), (None, dict(resume=True))])
def test_a_resumed_training_also_continues_from_what_was_there(attempt, given, keys):
    attempt.save('iter_6.pth')
    assert attempt.resume(0, given, **keys) == given
    attempt.save('iter_9.pth')
    assert attempt.resume(1, given, **keys) == given  # from the latest one, as the command line says


def test_an_attempt_that_ended_before_it_noted_anything_counts_as_none(attempt):
    attempt.save('iter_6.pth')
    assert attempt.resume(1) is None
    assert json.loads((attempt.folder / 'restarts.json').read_text())['old'].keys() == {'iter_6.pth'}


def test_several_machines_without_an_id(attempt, monkeypatch, capsys):
    """torchrun's own id is 'none' in each of their jobs."""
    attempt.resume(0, run='none')
    attempt.save('iter_6.pth')
    assert attempt.resume(1, run='none') is None
    assert attempt.resume(1, run='none', rank=1) is None
    assert capsys.readouterr().out.count('restart 1: training starts as before; with --rdzv-id') == 1
    monkeypatch.setenv('ADDP_MM_LAUNCH', 'earlier')
    attempt.resume(0, run='none')
    new = attempt.save('iter_3.pth')
    assert attempt.resume(1, run='none', rank=1) == new
    monkeypatch.setenv('ADDP_MM_LAUNCH', 'later')  # its attempt 0 has noted nothing
    assert attempt.resume(1, run='none', rank=1) is None
    assert attempt.resume(1, run='none') is None
    assert attempt.resume(1, run='none', rank=1) is None


def test_attempts_of_the_slurm_script(attempt, monkeypatch, capsys):
    cfg = Config(dict(work_dir=str(attempt.folder)))
    attempt.save('iter_9.pth')  # of an earlier training
    monkeypatch.setenv('ADDP_MM_LAUNCH', 'slurm-7')
    for number in '01':
        monkeypatch.setenv('ADDP_MM_ATTEMPT', number)
        for process in '01':
            monkeypatch.setenv('SLURM_PROCID', process)
            assert resume_of_restart(cfg, 'OLD/iter_5.pth') == 'OLD/iter_5.pth'
            assert resume_of_restart(cfg, 'auto') == 'auto'
    assert capsys.readouterr().out.count('have written no checkpoint') == 1
    new = attempt.save('iter_6.pth')
    assert resume_of_restart(cfg, 'OLD/iter_5.pth') == new
    assert resume_of_restart(cfg, 'auto') == 'auto'
