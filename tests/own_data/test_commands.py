# Copyright (c) addp_mm contributors. Apache-2.0.
"""The runner of commands: log, heartbeat, exit status, and the end of a run that is interrupted."""

import sys

import pytest

from addp_mm.own_data.commands import CommandError, Commands, LoggedProcess, last_lines, shown, tool


def python(code):
    return [sys.executable, '-c', code]


def test_a_process_has_a_log_a_heartbeat_and_an_outcome(tmp_path):
    log, beats = tmp_path / 'logs/a.log', []
    process = LoggedProcess(python('import os, time; print(os.environ["X"]); time.sleep(1)'), log, dict(X='seen'))
    outcome = process.wait(lambda: beats.append(last_lines(log, 1)), interval=0.1)
    assert outcome.status == 0
    assert outcome.seconds >= 1
    assert outcome.peak_mib > 1
    assert beats[-1] == ['seen']
    assert LoggedProcess(python('print("again")'), log).wait().status == 0
    assert last_lines(log, 5) == ['seen', 'again']


def test_a_process_ends_with_the_run_that_waits_for_it(tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    process = LoggedProcess(python('import time; time.sleep(600)'), tmp_path / 'log')
    with pytest.raises(KeyboardInterrupt):
        process.wait(interrupt, interval=0)
    with pytest.raises(ChildProcessError):
        process.wait()


def test_a_failed_command_quotes_its_log(tmp_path):
    lines = []
    commands = Commands(say=lines.append)
    with pytest.raises(CommandError, match=r'(?s)ended with status 3.*\| why.*continues from here'):
        commands(python('print("why"); raise SystemExit(3)'), tmp_path / 'log')
    assert lines[0].startswith('$ python -c')
    assert commands.ran == [lines[0][2:]]


def test_a_command_is_shown_as_a_user_types_it():
    assert shown(tool('train.py', 'a b.py', '--amp')) == "python tools/train.py 'a b.py' --amp"
