# Copyright (c) addp_mm contributors. Apache-2.0.
"""Lock a folder, so that only one run writes into it."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from addp_mm.errors import UserError

LOCK = '.lock'  # the file in the folder


class FolderInUseError(UserError, RuntimeError):
    """Another run uses a folder."""


def lock_folder(path: Path) -> IO[str]:
    """Lock a folder against other runs, until the file is closed here and in all that inherit it.

    Args:
        path: The folder. It is created if it is missing.

    Returns:
        The open file, for commands to inherit.

    Raises:
        FolderInUseError: Another run, or a command of a run that was killed, holds the lock.
    """
    path.mkdir(parents=True, exist_ok=True)
    lock = (path / LOCK).open('a')
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise FolderInUseError(
            f'{path} is in use by another run, or by a command of a run that was killed. Wait for it, or end it: '
            f'"fuser {path / LOCK}" lists the processes'
        ) from error
    return lock
