# Copyright (c) addp_mm contributors. Apache-2.0.
"""The launch scripts start torchrun on one machine and on two, and a stub of srun."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'
# The tool is replaced by a script that prints its arguments and the sum of the ranks of all
# processes.
TOOL = r"""
import os, sys
import torch
torch.distributed.init_process_group('gloo')
total = torch.tensor(torch.distributed.get_rank() + 1)
torch.distributed.all_reduce(total)
# one write, so that the lines of two processes cannot mingle
sys.stdout.write(' '.join(['SUM', str(int(total)), 'OF', os.environ['WORLD_SIZE'], 'LOCAL', os.environ['LOCAL_RANK'],
                           *sys.argv[1:]]) + '\n')
sys.stdout.write(f'LAUNCH {os.environ["ADDP_MM_LAUNCH"]}\n')
sys.stdout.flush()
torch.distributed.destroy_process_group()
"""
PYTHON = """#!/usr/bin/env bash
arguments=()
for argument in "$@"; do
  case $argument in */tools/*.py) argument={tool} ;; esac
  arguments+=("$argument")
done
exec {python} "${{arguments[@]}}"
"""
# srun ends with the next status of a list, and with 0 after the last one
SRUN = """#!/usr/bin/env bash
echo "SRUN $* MASTER_PORT=$MASTER_PORT"
echo "ATTEMPT $ADDP_MM_ATTEMPT OF $ADDP_MM_LAUNCH"
read -r status rest <<< "$(cat "$0.statuses" 2>/dev/null)"
echo "${rest:-}" > "$0.statuses"
exit "${status:-0}"
"""
SCONTROL = """#!/usr/bin/env bash
echo "SCONTROL $*"
"""


@pytest.fixture
def environment(tmp_path):
    (tmp_path / 'tool.py').write_text(TOOL)
    python = PYTHON.format(tool=tmp_path / 'tool.py', python=sys.executable)
    for name, text in dict(python=python, srun=SRUN, scontrol=SCONTROL).items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return {
        **os.environ,
        'PYTHON': str(tmp_path / 'python'),
        'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
        'OMP_NUM_THREADS': '1',
    }


def lines(output: str, start: str) -> list[str]:
    return sorted(line for line in output.splitlines() if line.startswith(start))


@pytest.mark.slow
def test_two_machines_make_one_job(environment):
    """Two launchers on this machine, each with one process, as two machines would run them."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    nodes = [
        subprocess.Popen(
            [TOOLS / 'dist_train.sh', 'config.py', '1', '--amp'],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**environment, 'NNODES': '2', 'NODE_RANK': rank, 'MASTER_ADDR': '127.0.0.1', 'PORT': port},
        )
        for rank in '01'
    ]
    launches = set()
    for node in nodes:
        output = node.communicate(timeout=300)[0]
        assert node.returncode == 0, output
        assert lines(output, 'SUM') == ['SUM 3 OF 2 LOCAL 0 config.py --launcher pytorch --amp']
        launches.update(lines(output, 'LAUNCH'))
    assert len(launches) == 1


@pytest.mark.slow
def test_two_processes_of_one_machine(environment):
    finished = subprocess.run(
        [TOOLS / 'dist_test.sh', 'config.py', 'weights.pth', '2', '--seed', '1'],
        text=True,
        capture_output=True,
        env=environment,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    assert lines(finished.stdout, 'SUM') == [
        f'SUM 3 OF 2 LOCAL {rank} config.py weights.pth --launcher pytorch --seed 1' for rank in range(2)
    ]


@pytest.mark.parametrize(
    'script, arguments, given',
    [
        ('slurm_train.sh', ['config.py', '--amp'], 'tools/train.py config.py --launcher slurm --amp'),
        ('slurm_test.sh', ['config.py', 'weights.pth'], 'tools/test.py config.py weights.pth --launcher slurm'),
        ('slurm_test.sh', ['config.py', ''], 'tools/test.py config.py --launcher slurm'),
    ],
)
def test_slurm_scripts(environment, script, arguments, given):
    finished = subprocess.run(
        [TOOLS / script, 'gpu', 'addp', *arguments],
        text=True,
        capture_output=True,
        check=True,
        env={**environment, 'GPUS': '16', 'PORT': '12345', 'SRUN_ARGS': '--time 1:00:00 --exclusive'},
    )
    (line,) = lines(finished.stdout, 'SRUN')
    for part in (
        '--partition gpu',
        '--job-name addp',
        '--gres gpu:8',
        '--ntasks 16',
        '--ntasks-per-node 8',
        '--cpus-per-task 8',
        '--time 1:00:00 --exclusive',
        given + ' MASTER_PORT=12345',
    ):
        assert part in line


@pytest.mark.parametrize(
    'statuses, environ, options, last, attempts, requeued',
    [
        ('75 143 0', {}, [], 0, '012', False),
        ('75 0', {}, ['--resume', 'iter_5.pth'], 0, '01', False),
        ('75', dict(SLURM_JOB_ID='7'), ['--resume'], 75, '0', True),
        ('143', dict(SLURM_JOB_ID='7', SLURM_RESTART_COUNT='1'), [], 143, '1', True),
        ('0', dict(SLURM_JOB_ID='7', SLURM_RESTART_COUNT='2'), [], 0, '2', False),
        ('1', dict(SLURM_JOB_ID='7'), [], 1, '0', False),
        ('137', {}, [], 137, '0', False),
        ('130', {}, [], 130, '0', False),
    ],
)
def test_a_preempted_training_continues(tmp_path, environment, statuses, environ, options, last, attempts, requeued):
    (tmp_path / 'srun.statuses').write_text(statuses)
    finished = subprocess.run(
        [TOOLS / 'slurm_train.sh', 'gpu', 'addp', 'config.py', *options],
        text=True,
        capture_output=True,
        env={**environment, 'PORT': '1', 'STOP_SECONDS': '60', **environ},
        timeout=60,
    )
    assert finished.returncode == last, finished.stderr
    begun = [line for line in finished.stdout.splitlines() if line.startswith('SRUN')]
    assert [line.partition(' slurm')[2].split() for line in begun] == [[*options, 'MASTER_PORT=1']] * len(attempts)
    assert all('--kill-on-bad-exit=0 --signal=USR1@60' in line for line in begun)
    assert [line.split()[1] for line in lines(finished.stdout, 'ATTEMPT')] == list(attempts)
    (launch,) = {line.split()[3] for line in lines(finished.stdout, 'ATTEMPT')}
    assert launch == 'slurm-7' if environ else launch.startswith('srun-')
    assert lines(finished.stdout, 'SCONTROL') == ['SCONTROL requeue 7'] * requeued


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_too_few_arguments_show_the_usage(environment, script):
    finished = subprocess.run([TOOLS / script, 'config.py'], text=True, capture_output=True, env=environment)
    assert finished.returncode == 2
    assert f'{script} ' in finished.stderr
    assert 'usage' in finished.stderr


@pytest.mark.parametrize(
    'arguments',
    [
        ['dist_train.sh', 'config.py', '0'],
        ['dist_train.sh', 'config.py', '--resume'],
        ['dist_test.sh', 'config.py', 'weights.pth', 'two'],
    ],
)
def test_a_wrong_number_of_processes_shows_the_usage(environment, arguments):
    finished = subprocess.run([TOOLS / arguments[0], *arguments[1:]], text=True, capture_output=True, env=environment)
    assert finished.returncode == 2
    assert 'usage' in finished.stderr
    assert 'PROCESSES' in finished.stderr


def test_several_machines_need_their_rank(environment):
    finished = subprocess.run(
        [TOOLS / 'dist_train.sh', 'config.py', '1'], text=True, capture_output=True, env={**environment, 'NNODES': '2'}
    )
    assert finished.returncode != 0
    assert 'set NODE_RANK on each machine' in finished.stderr
