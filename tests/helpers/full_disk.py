# Copyright (c) addp_mm contributors. Apache-2.0.
"""A hook that fills the disk of the work dir during a training."""

import contextlib
import os
import resource
import subprocess
from fnmatch import fnmatch
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class FullDisk(Hook):
    """Leaves little room from an iteration on.

    Args:
        iteration: The iteration, counted from 0.
        room: Bytes that can still be written.
        limit: Whether the size of each file is limited, instead of the room on the disk.
    """

    priority = 'HIGHEST'

    def __init__(self, iteration: int, room: int, limit: bool = False) -> None:
        self.iteration, self.room, self.limit = iteration, room, limit

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter != self.iteration:
            return
        if self.limit:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.room, hard))
            return
        filler = Path(runner.work_dir, 'filler')
        with contextlib.suppress(OSError), open(filler, 'wb', buffering=0) as file:
            while True:
                file.write(bytes(4096))
        os.truncate(filler, max(filler.stat().st_size - self.room, 0))


@HOOKS.register_module()
class FullFile(Hook):
    """Links files of the work dir to a device that is always full, from an iteration on.

    Args:
        iteration: The iteration, counted from 0.
        pattern: Pattern of the names of the files.
    """

    priority = 'HIGHEST'

    def __init__(self, iteration: int, pattern: str) -> None:
        self.iteration, self.pattern = iteration, pattern

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.iteration:
            for path in Path(runner.work_dir).rglob(self.pattern):
                path.unlink()
                path.symlink_to('/dev/full')
            for handler in runner.logger.handlers:
                if fnmatch(getattr(handler, 'baseFilename', ''), self.pattern):
                    handler.stream = open('/dev/full', 'w')  # noqa: SIM115  (the handler closes it)


@HOOKS.register_module()
class ReadOnly(Hook):
    """Makes a disk read-only, from an iteration on.

    Args:
        iteration: The iteration, counted from 0.
        disk: The folder where it is mounted.
    """

    priority = 'HIGHEST'

    def __init__(self, iteration: int, disk: str) -> None:
        self.iteration, self.disk = iteration, disk

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.iteration:
            subprocess.run(['mount', '-o', 'remount,ro', self.disk], check=True)
