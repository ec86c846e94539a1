# Copyright (c) addp_mm contributors. Apache-2.0.
"""The runner of commands: log, heartbeat, exit status, and an interrupted run."""

import os
import sys

import pytest

from addp_mm.logged_command import last_lines, run_logged
from addp_mm.stages.commands import CommandError, Commands, shown, tool


def python(code):
    return [sys.executable, '-c', code]


def test_a_process_has_a_log_a_heartbeat_and_an_outcome(tmp_path):
    log, beats = tmp_path / 'logs/a.log', []
    command = python('import os, time; print(os.environ["X"]); time.sleep(1)')
    outcome = run_logged(command, log, dict(X='seen'), heartbeat=lambda: beats.append(last_lines(log, 1)), interval=0.1)
    assert outcome.status == 0
    assert outcome.seconds >= 1
    assert outcome.peak_mib > 1
    assert beats[-1] == ['seen']
    assert run_logged(python('print("again")'), log).status == 0
    assert last_lines(log, 5) == ['seen', 'again']


def test_a_process_ends_with_the_run_that_waits_for_it(tmp_path):
    log = tmp_path / 'log'

    def interrupt():
        if last_lines(log, 1):
            raise KeyboardInterrupt

    code = 'import os, time; print(os.getpid()); time.sleep(600)'
    with pytest.raises(KeyboardInterrupt):
        run_logged(python(code), log, heartbeat=interrupt, interval=0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(*last_lines(log, 1)), 0)


def test_a_failed_command_quotes_its_log(tmp_path):
    lines = []
    commands = Commands(say=lines.append)
    with pytest.raises(CommandError, match=r'(?s)ended with status 3.*\| why.*continues at this command'):
        commands(python('print("why"); raise SystemExit(3)'), tmp_path / 'log')
    assert lines[0].startswith('$ python -c')
    assert commands.ran == [lines[0][2:]]


def test_a_command_is_shown_as_a_user_types_it():
    assert shown(tool('train.py', 'a b.py', '--amp')) == "python tools/train.py 'a b.py' --amp"


@pytest.mark.parametrize('status', [75, 130, 143])
def test_a_training_that_has_saved_is_interrupted_and_has_not_failed(tmp_path, status):
    with pytest.raises(KeyboardInterrupt):
        Commands(say=lambda _: None)(python(f'raise SystemExit({status})'), tmp_path / 'log')
