# Copyright (c) addp_mm contributors. Apache-2.0.
"""The launchers slurm and mpi on the CPU, in the environment of srun and mpirun."""

import json
import os
import socket
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

WORKER = """
import json, os, sys
import addp_mm
import torch
from mmengine import dist

dist.init_dist(sys.argv[1])
number = torch.tensor(3.0)
dist.all_reduce(number)
print(json.dumps(dict(
    backend=dist.get_backend(), rank=dist.get_rank(), world_size=dist.get_world_size(), sum=float(number),
    address=os.environ['MASTER_ADDR'])))
torch.distributed.destroy_process_group()
"""
SCONTROL = """#!/bin/sh
[ "$*" = 'show hostname node7,node8' ] || exit 1
echo localhost
echo node8
"""
ENVIRONMENTS = dict(
    slurm=dict(SLURM_PROCID='0', SLURM_NTASKS='1', SLURM_NODELIST='node7,node8', SLURM_LOCALID='0'),
    slurm_without_local_id=dict(SLURM_PROCID='0', SLURM_NTASKS='1', SLURM_NODELIST='node7,node8'),
    mpi=dict(
        OMPI_COMM_WORLD_RANK='0', OMPI_COMM_WORLD_SIZE='1', OMPI_COMM_WORLD_LOCAL_RANK='0', MASTER_ADDR='localhost'
    ),
)
_LAUNCH_VARIABLES = ('SLURM_', 'OMPI_', 'MASTER_', 'RANK', 'WORLD_SIZE', 'LOCAL_')


@pytest.mark.parametrize('case', ENVIRONMENTS)
def test_launcher_starts_on_the_cpu(case, tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text(SCONTROL)
    scontrol.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_LAUNCH_VARIABLES)}
    environment = {
        **inherited,
        **ENVIRONMENTS[case],
        'MASTER_PORT': port,
        'CUDA_VISIBLE_DEVICES': '',
        'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
    }
    finished = subprocess.run(
        [sys.executable, '-c', WORKER, case.split('_')[0]], env=environment, text=True, capture_output=True, timeout=200
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout.splitlines()[-1]) == dict(
        backend='gloo', rank=0, world_size=1, sum=3.0, address='localhost'
    )
