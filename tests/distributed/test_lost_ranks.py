# Copyright (c) addp_mm contributors. Apache-2.0.
"""One of two processes dies, falls silent or fails: the other one ends with one line about it."""

import re
import signal

import pytest
from helpers.two_trainings import run_two, write_config

from addp_mm.errors import LOST_STATUS

pytestmark = pytest.mark.slow
REMEDY = 'the same command with --resume continues from the last checkpoint'


def disturbed(folder, how, rank, iteration=4, timeout=20.0):
    hook = dict(type='mmengine.Disturb', rank=rank, iteration=iteration, how=how)
    return write_config(folder, hook, timeout=timeout)


def the_error(output: str) -> str:
    """The only line of errors."""
    assert 'Traceback' not in output
    (line,) = [line for line in output.splitlines() if line.startswith('error: ')]
    return line


# rank 0 contains the store of the group, and with it what the processes tell each other
@pytest.mark.parametrize('how, rank', [('SIGKILL', 1), ('SIGKILL', 0), ('SIGSTOP', 0)])
def test_a_killed_or_silent_process_is_named(tmp_path, how, rank):
    config = disturbed(tmp_path, how, rank, timeout=20.0 if how == 'SIGKILL' else 10.0)
    results = run_two(tmp_path, config, '--work-dir', tmp_path / 'work')
    assert results[rank][0] == (-signal.SIGKILL if how == 'SIGKILL' else None)
    status, output, _ = results[1 - rank]
    assert status == LOST_STATUS, output
    gone, here, remedy = the_error(output).removeprefix('error: ').split('; ')
    # the machine is known from the first heartbeat that was read: five iterations may end before
    assert re.fullmatch(
        rf'rank {rank}( on \S+( \(last heard of in iteration \d\))?)? is gone: '
        'killed, stopped, or the machine is down',
        gone,
    )
    assert here == f'rank {1 - rank} ends in iteration 5'
    assert remedy == REMEDY


@pytest.mark.parametrize(
    'how, rank, text',
    [
        ('error', 1, 'ZeroDivisionError: a bug in the data'),
        ('full', 0, 'iter_3.pth cannot be written (No space left on device)'),
    ],
)
def test_the_error_of_one_process_is_the_one_that_is_shown(tmp_path, how, rank, text):
    config = disturbed(tmp_path, how, rank)
    results = run_two(tmp_path, config, '--work-dir', tmp_path / 'work')
    status, output, _ = results[rank]
    assert status == 1
    assert output.rstrip().splitlines()[-1].endswith(text)
    assert (how == 'full') == ('Traceback' not in output)
    status, output, _ = results[1 - rank]
    assert status == LOST_STATUS, output
    failed, here, _ = the_error(output).split('; ')
    assert re.fullmatch(
        rf'error: rank {rank} on \S+ \(last heard of in iteration 5\) failed: {re.escape(text)}', failed
    )
    assert here == f'rank {1 - rank} ends in iteration 5'
