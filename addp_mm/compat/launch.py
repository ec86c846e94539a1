# Copyright (c) addp_mm contributors. Apache-2.0.
"""Starting several processes."""
import os
from collections.abc import Mapping

from addp_mm.errors import UserError

_LAUNCHERS = {
    'WORLD_SIZE': ('pytorch', 'torchrun'),
    'SLURM_STEP_NUM_TASKS': ('slurm', 'srun'),
    'OMPI_COMM_WORLD_SIZE': ('mpi', 'mpirun'),
}


class LauncherError(UserError, RuntimeError):
    """The way the processes were started does not fit ``--launcher``."""


def refuse_forgotten_launcher(launcher: str, environ: Mapping[str, str] | None = None) -> None:
    """Stop a run that a launcher started several times over but that would not know of its siblings.

    Without ``--launcher`` each process trains by itself, on all data, and writes into the same folder.

    Args:
        launcher: The ``--launcher`` of the tool.
        environ: Environment to look at. Defaults to the process's own.

    Raises:
        LauncherError: ``launcher`` is 'none' and the environment speaks of more than one process.
    """
    if launcher != 'none':
        return
    environ = os.environ if environ is None else environ
    for variable, (needed, program) in _LAUNCHERS.items():
        count = environ.get(variable, '')
        if count.isdigit() and int(count) > 1:
            raise LauncherError(
                f'{program} started {count} processes ({variable}={count}), but --launcher is none: they would train '
                f'independently and write over each other. Add --launcher {needed}, or start one process without '
                f'{program} (unset {variable} if it is a leftover).')
