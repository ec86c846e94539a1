# Copyright (c) addp_mm contributors. Apache-2.0.
"""A hook that sends a signal to the training, and one that records which images were trained on."""

import multiprocessing
import os
import subprocess
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class KillAt(Hook):
    """Sends a signal to its process and its data workers in an iteration, counted from 0.

    Another process sends it, as a scheduler or a terminal does. With ``in_validation`` it is sent
    in the validation after this number of iterations.
    """

    def __init__(self, iteration: int, signal: str = 'SIGKILL', in_validation: bool = False) -> None:
        self.iteration, self.signal, self.in_validation = iteration, signal, in_validation

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self._send(runner, not self.in_validation)

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        self._send(runner, self.in_validation)

    def _send(self, runner, is_stage: bool) -> None:
        if is_stage and runner.iter == self.iteration:
            workers = [worker.pid for worker in multiprocessing.active_children()]
            subprocess.run(['kill', f'-{self.signal.removeprefix("SIG")}', *map(str, (*workers, os.getpid()))])


@HOOKS.register_module()
class RecordBatches(Hook):
    """Appends the sum of each batch to ``batches.txt``."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        inputs = data_batch['inputs']
        with open(Path(runner.work_dir) / 'batches.txt', 'a') as file:
            file.write(f'{runner.iter} {int(sum(int(row.sum()) for row in inputs))}\n')


@HOOKS.register_module()
class BreakFiles(Hook):
    """Removes files, or replaces their content, before an iteration, counted from 0.

    Args:
        iteration: The iteration.
        paths: The files.
        content: The new content. Defaults to None: the files are removed.
    """

    def __init__(self, iteration: int, paths: list, content: str | None = None) -> None:
        self.iteration, self.paths, self.content = iteration, [Path(path) for path in paths], content

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.iteration:
            for path in self.paths:
                path.unlink(missing_ok=True)
                if self.content is not None:
                    path.write_text(self.content)
