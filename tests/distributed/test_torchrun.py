# Copyright (c) addp_mm contributors. Apache-2.0.
"""A failed process gives its own error and one line, instead of torchrun's 40 lines."""

import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from addp_mm import torchrun
from addp_mm.torchrun import describe, first_failure

TOOL = """
import os, sys, time
if os.environ['RANK'] == '1':
    {how}
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    'how, lines',
    [
        (
            'sys.exit("error: no such folder")',
            [
                'error: no such folder',
                'process 1 ended with status 1; its error is above; 1 more failed or were stopped',
            ],
        ),
        ('os.kill(os.getpid(), 9)', ['process 1 was ended by SIGKILL (out of memory?); 1 more failed or were stopped']),
    ],
)
def test_a_failed_process_is_reported_in_one_line(tmp_path, how, lines):
    (tmp_path / 'tool.py').write_text(TOOL.format(how=how))
    environ = {name: value for name, value in os.environ.items() if name not in ('OMP_NUM_THREADS', 'LOGLEVEL')}
    done = subprocess.run(
        [sys.executable, '-m', 'addp_mm.torchrun', '--standalone', '--nproc-per-node', '2', tmp_path / 'tool.py'],
        capture_output=True,
        text=True,
        env=environ,
        timeout=300,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-len(lines) :] == lines
    for word in ('Traceback', 'ChildFailedError', 'OMP_NUM_THREADS'):
        assert word not in done.stderr


def test_one_process_that_fails():
    assert describe(0, SimpleNamespace(exitcode=3), 1) == 'process 0 ended with status 3; its error is above'
    segfault = SimpleNamespace(exitcode=-signal.SIGSEGV)
    assert describe(7, segfault, 1) == 'process 7 was ended by SIGSEGV'


STOPPING = """
import os, signal, sys, time
def stop(number, frame):
    time.sleep(1)  # saves
    os.write(1, f'SAVED {{os.environ["RANK"]}} {{number}}\\n'.encode())  # in one piece: two processes write here
    sys.exit(75)
signal.signal(signal.{name}, stop)
open('ready_' + os.environ['RANK'], 'w').close()
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize('name', ['SIGTERM', 'SIGUSR1'])
def test_a_signal_reaches_the_processes_which_end_by_themselves(tmp_path, name):
    (tmp_path / 'tool.py').write_text(STOPPING.format(name=name))
    number = getattr(signal, name)
    launcher = subprocess.Popen(
        [sys.executable, '-m', 'addp_mm.torchrun', '--standalone', '--nproc-per-node', '2', '--max-restarts', '3']
        + [tmp_path / 'tool.py'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    while launcher.poll() is None and len(list(tmp_path.glob('ready_*'))) < 2:
        time.sleep(0.05)
    launcher.send_signal(number)
    output, errors = launcher.communicate(timeout=300)
    assert launcher.returncode == 75, errors
    assert sorted(output.split('\n')) == ['', f'SAVED 0 {int(number)}', f'SAVED 1 {int(number)}']
    assert 'Traceback' not in errors


@pytest.mark.slow
@pytest.mark.parametrize('name, status', [('SIGTERM', 75), ('SIGINT', 130)])
def test_a_signal_ends_a_launcher_that_waits_for_other_machines(name, status):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    launcher = subprocess.Popen(
        [sys.executable, '-m', 'addp_mm.torchrun', '--nnodes', '2', '--node-rank', '0', '--master-addr', '127.0.0.1']
        + ['--master-port', str(port), 'tool.py'],
        stderr=subprocess.PIPE,
        text=True,
    )
    while launcher.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(('127.0.0.1', port)) == 0:
                break
        time.sleep(0.05)
    launcher.send_signal(getattr(signal, name))
    errors = launcher.communicate(timeout=300)[1]
    assert launcher.returncode == status, errors
    line = f'stopped by {name} while no process was running; the same command with --resume continues'
    assert errors.splitlines()[-1] == line


class Agent:
    """The methods of torchrun's agent that are extended."""

    def _rendezvous(self, group):
        group.group_rank, group.store = 0, SimpleNamespace(set=lambda *_: None)

    def _start_workers(self, group):
        return {0: 100, 1: 101}

    def _stop_workers(self, group):
        pass


def test_a_signal_goes_to_running_processes_only(monkeypatch):
    monkeypatch.setenv(torchrun.LAUNCH, '')
    monkeypatch.setattr(signal, 'signal', lambda *_: None)
    monkeypatch.setattr(signal, 'set_wakeup_fd', lambda _: None)
    monkeypatch.setattr(os, '_exit', sys.exit)
    got, group = [], SimpleNamespace()
    monkeypatch.setattr(os, 'kill', lambda *call: got.append(call))
    agent = type('', (torchrun._PassingOn, Agent), {})()
    agent._rendezvous(group)
    with pytest.raises(SystemExit, match='75'):
        agent._receive(signal.SIGUSR1)
    agent._start_workers(group)
    assert got == [(100, signal.SIGUSR1), (101, signal.SIGUSR1)]
    agent._receive(signal.SIGINT)
    assert got[2:] == [(100, signal.SIGINT), (101, signal.SIGINT)]
    agent._stop_workers(group)
    agent._receive(signal.SIGINT)
    assert len(got) == 4
    with pytest.raises(SystemExit, match='130'):
        agent._rendezvous(group)


def test_a_process_that_ended_because_another_one_is_gone_is_not_the_first():
    killed, lost, stopped = (SimpleNamespace(exitcode=code, timestamp=9) for code in (-9, 69, -15))
    assert first_failure({0: lost, 1: killed, 2: stopped}) == 1
    assert first_failure({0: stopped, 1: lost}) == 1
    assert first_failure({0: stopped}) == 0
    assert describe(0, lost, 1) == 'process 0 ended because a process of another machine is gone; its error is above'
