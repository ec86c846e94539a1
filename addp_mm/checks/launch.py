# Copyright (c) addp_mm contributors. Apache-2.0.
"""Starting several processes."""

import os
from collections.abc import Mapping

from addp_mm.errors import UserError

# what a launcher tells each process: how many there are, and which of them it is
_LAUNCHERS = {
    'pytorch': ('torchrun', 'WORLD_SIZE', 'RANK'),
    'slurm': ('srun', 'SLURM_STEP_NUM_TASKS', 'SLURM_PROCID'),
    'mpi': ('mpirun', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}
_SCRIPTS = {
    'pytorch': 'bash tools/dist_train.sh CONFIG PROCESSES',
    'slurm': 'bash tools/slurm_train.sh PARTITION JOB CONFIG',
    'mpi': 'mpirun -n PROCESSES python tools/train.py CONFIG --launcher mpi',
}


class LauncherError(UserError, RuntimeError):
    """The way the processes were started does not fit ``--launcher``."""


def check_launcher(launcher: str, environ: Mapping[str, str] | None = None) -> None:
    """Stop a run whose ``--launcher`` is not what started it.

    Without ``--launcher`` each of several processes would train by itself, on all data, and write
    into the same folder; with the name of a launcher that did not start it, a process does not know
    which one it is.

    Args:
        launcher: The ``--launcher`` of the tool.
        environ: Environment to look at. Defaults to the process's own.

    Raises:
        LauncherError: ``launcher`` is 'none' and the environment speaks of more than one process,
            or ``launcher`` names one that the environment does not speak of.
    """
    environ = os.environ if environ is None else environ
    if launcher != 'none':
        program, _, rank = _LAUNCHERS[launcher]
        if rank not in environ:
            raise LauncherError(
                f'--launcher {launcher}, but {program} did not start this process ({rank} is not set). '
                f'Type\n    {_SCRIPTS[launcher]}\nor leave --launcher out for one process.'
            )
        return
    for needed, (program, variable, _) in _LAUNCHERS.items():
        count = environ.get(variable, '')
        if count.isdigit() and int(count) > 1:
            raise LauncherError(
                f'{program} started {count} processes ({variable}={count}), but --launcher is none: they would train '
                f'independently and write over each other. Add --launcher {needed}, or start one process without '
                f'{program} (unset {variable} if it is a leftover).'
            )
