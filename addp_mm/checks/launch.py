# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check that ``--launcher`` names the launcher that started the processes."""

import os
from collections.abc import Mapping

from addp_mm.errors import UserError

# program of each launcher, and its variables for the number of processes and the rank
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
    """``--launcher`` does not name the launcher that started the processes."""


def check_launcher(launcher: str, environ: Mapping[str, str] | None = None, command: str = '') -> None:
    """Check that ``--launcher`` names the launcher that started this process.

    Without ``--launcher``, each of several processes would do the whole work alone, and write into
    the same folder. With another launcher, a process cannot find its rank.

    Args:
        launcher: The ``--launcher`` of the tool.
        environ: Environment variables. Defaults to None: those of the process.
        command: Command line that starts the tool with a launcher, for the error. Defaults to '':
            that of a training.

    Raises:
        LauncherError: ``launcher`` is 'none' and the environment has the variables of several
            processes, or it lacks those of ``launcher``.
    """
    environ = os.environ if environ is None else environ
    if launcher != 'none':
        program, _, rank = _LAUNCHERS[launcher]
        if rank not in environ:
            raise LauncherError(
                f'--launcher {launcher}, but {program} did not start this process ({rank} is not set). '
                f'Type\n    {command or _SCRIPTS[launcher]}\nor leave --launcher out for one process.'
            )
        return
    for needed, (program, variable, _) in _LAUNCHERS.items():
        count = environ.get(variable, '')
        if count.isdecimal() and int(count) > 1:
            raise LauncherError(
                f'{program} started {count} processes ({variable}={count}), but --launcher is none: they would work '
                f'independently and overwrite each other. Add --launcher {needed}, or start one process without '
                f'{program}. If no launcher is running, unset {variable}.'
            )
