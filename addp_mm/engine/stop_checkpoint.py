# Copyright (c) addp_mm contributors. Apache-2.0.
"""The checkpoint of a training that was stopped between two regular checkpoints."""

from __future__ import annotations

import os
import shutil
from contextlib import nullcontext
from pathlib import Path

from mmengine import dist
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from addp_mm.checkpoints.atomic_write import write_text
from addp_mm.engine.hooks.checkpoint_hook import CheckpointHook
from addp_mm.engine.unwrap import find_checkpoint_hook, is_resuming
from addp_mm.errors import RESUME

STATE_KEY = 'stopped'


class StopCheckpoint:
    """Writes the checkpoint of a stop, and removes it after the resume."""

    def __init__(self) -> None:
        self._is_saving = False
        self._resumed_from = ''

    def save(self, runner: Runner, counts: dict) -> str:
        """Save the training after an iteration, unless CheckpointHook has just done so.

        Args:
            runner: A runner in training.
            counts: ``epoch`` and ``iter`` of the finished epochs and iterations.

        Returns:
            Path of the checkpoint.
        """
        hook = find_checkpoint_hook(runner)
        folder, name = runner.work_dir, f'iter_{counts["iter"]}.pth'
        path, options = os.path.join(folder, name), {}
        if hook is not None:
            _finish(hook)
            if _has_just_saved(hook, runner, counts):
                return hook.last_ckpt
            folder = hook.out_dir
            path = hook.file_backend.join_path(folder, name)
            options = dict(file_client_args=hook.file_client_args, backend_args=hook.backend_args)
        # a regular checkpoint of this name may hold less than this one, but it is not removed later
        self._is_saving = path == self._resumed_from or not os.path.exists(path)
        with hook.with_gradients(runner) if isinstance(hook, CheckpointHook) else nullcontext():
            runner.save_checkpoint(folder, name, meta=dict(counts), by_epoch=False, **options)
        self._is_saving = False
        if dist.is_main_process():
            write_text(Path(runner.work_dir, 'last_checkpoint'), path, RESUME)
            self._remove(runner, path)
        return path

    def mark(self, checkpoint: dict) -> None:
        """Mark a checkpoint that :meth:`save` writes."""
        if self._is_saving:
            checkpoint[STATE_KEY] = True

    def note_loaded(self, runner: Runner, checkpoint: dict) -> None:
        """Note the checkpoint that is resumed, if a stop has written it."""
        source = runner._load_from  # noqa: SLF001  # mmengine has no public attribute for the checkpoint of a run
        if checkpoint.get(STATE_KEY) and is_resuming(runner) and isinstance(source, str):
            self._resumed_from = source

    def remove_replaced(self, runner: Runner) -> None:
        """Remove the checkpoint of the stop when ``last_checkpoint`` names a newer one."""
        if not (self._resumed_from and dist.is_main_process()):
            return
        hook, named = find_checkpoint_hook(runner), Path(runner.work_dir, 'last_checkpoint')
        # a checkpoint of this run; it may still be written in the background
        if getattr(hook, 'last_ckpt', None) and named.is_file():
            self._remove(runner, named.read_text())

    def _remove(self, runner: Runner, newest: str) -> None:
        """Remove it from the folder of the run, unless it is the newest one itself."""
        old, new = Path(self._resumed_from), Path(newest)
        if not self._resumed_from or old.resolve() == new.resolve() or not new.exists():
            return
        self._resumed_from = ''
        if old.resolve().parent != new.resolve().parent:
            return  # a file of another run
        if old.is_dir():  # of DeepSpeed
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)
        runner.logger.info(f'{new.name} is complete: {old.name}, written when training stopped, is removed')


def _finish(hook: MMEngineCheckpointHook) -> None:
    """Wait for a checkpoint that is written in the background."""
    if isinstance(hook, CheckpointHook):
        hook.finish()


def _has_just_saved(hook: MMEngineCheckpointHook, runner: Runner, counts: dict) -> bool:
    """Whether the last regular checkpoint is complete, and has all finished iterations."""
    if not (hook.last_ckpt and hook.save_optimizer and hook.save_param_scheduler):
        return False
    if os.path.basename(hook.last_ckpt) != hook.filename_tmpl.format(counts['epoch' if hook.by_epoch else 'iter']):
        return False
    # one of an epoch has the name of the finished epochs until the next one has ended
    return not hook.by_epoch or counts['iter'] == counts['epoch'] * len(runner.train_dataloader)
