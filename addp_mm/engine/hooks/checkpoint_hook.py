# Copyright (c) addp_mm contributors. Apache-2.0.
"""Save checkpoints so that at every moment the last complete one can be resumed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from addp_mm.checkpoints.atomic_write import remove_partials, write_text
from addp_mm.checkpoints.saving import write_checkpoint, writing_by
from addp_mm.engine import accumulated_gradients
from addp_mm.engine.background_write import BackgroundWrite
from addp_mm.engine.unwrap import is_resuming
from addp_mm.errors import RESUME
from addp_mm.registry import HOOKS


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's CheckpointHook, which never leaves a training without a complete checkpoint.

    - A checkpoint is written under a temporary name, verified and synced before it gets its name.
    - Older checkpoints (``max_keep_ckpts``, ``save_best``) are deleted after that, and not at all
      if the new one cannot be written.
    - ``last_checkpoint`` is replaced after the checkpoint that it names is complete.
    - A checkpoint within an accumulated optimizer step holds its gradients, see
      :mod:`addp_mm.engine.accumulated_gradients`.

    Args:
        *args: Arguments of mmengine's hook.
        background: Whether the training continues while a checkpoint is written. The state is
            copied first, so that the memory must hold it twice. Only one checkpoint is written at a
            time; the next one waits for it. Defaults to False.
        **kwargs: Arguments of mmengine's hook: ``interval``, ``by_epoch``, ``save_best``, ….
    """

    def __init__(self, *args, background: bool = False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.background = background
        self._thread = BackgroundWrite()
        self._outdated: list[str] = []
        self._gradients: dict | None = None
        self._loaded: dict | None = None

    @property
    def file_backend(self) -> Any:
        """The backend of the checkpoints. What it is asked to delete waits for the next write."""
        return _DeletesLater(self._backend, self._outdated)

    @file_backend.setter
    def file_backend(self, backend: Any) -> None:
        self._backend = backend

    def finish(self) -> None:
        """Wait until the checkpoint that is written in the background is complete.

        Raises:
            FileWriteError: It could not be written.
        """
        self._thread.finish()

    def before_train(self, runner: Runner) -> None:
        """Remove what a killed process left, and continue an unfinished optimizer step."""
        self.finish()
        super().before_train(runner)
        if dist.is_main_process() and '://' not in str(self.out_dir):
            remove_partials(self.out_dir, '*.pth')
            remove_partials(runner.work_dir, 'last_checkpoint')
        self.put_gradients_back(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Raise the error of a write in the background."""
        self._thread.raise_error()

    def after_train(self, runner: Runner) -> None:
        """Complete the last checkpoint, and publish it if the config wants so."""
        self.finish()
        super().after_train(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the gradients of an unfinished optimizer step."""
        if self._gradients is not None and 'optimizer' in checkpoint:
            checkpoint[accumulated_gradients.STATE_KEY] = self._gradients

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the gradients of an unfinished optimizer step until training starts."""
        self._loaded = checkpoint.get(accumulated_gradients.STATE_KEY) if is_resuming(runner) else None

    @staticmethod
    def keeps_gradients(runner: Runner) -> bool:
        """Whether checkpoints hold the gradients of an unfinished optimizer step."""
        return accumulated_gradients.can_be_kept(runner)

    @contextmanager
    def with_gradients(self, runner: Runner) -> Iterator[None]:
        """A context in which ``runner.save_checkpoint`` stores those gradients.

        All processes enter it together; the runner itself saves in the main process only.
        """
        self._gradients = accumulated_gradients.of_unfinished_steps(runner)
        try:
            yield
        finally:
            self._gradients = None

    def put_gradients_back(self, runner: Runner) -> None:
        """Give the model the gradients of the checkpoint that was loaded, if it holds any."""
        if self._loaded is not None:
            accumulated_gradients.put_back(runner, self._loaded)
        self._loaded = None

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        self._keep(runner, step)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self._backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        with self.with_gradients(runner), self._saving(Path(runner.work_dir, 'last_checkpoint')):
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with self._saving():
            super()._save_best_checkpoint(runner, metrics)

    def _keep(self, runner: Runner, step: int) -> None:
        """Count a checkpoint, and let the oldest one be deleted if there are too many."""
        if self.max_keep_ckpts <= 0 or (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            return
        if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
            oldest = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            if dist.is_main_process():
                self._outdated.append(self._backend.join_path(self.out_dir, oldest))
        self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

    @contextmanager
    def _saving(self, last: Path | None = None) -> Iterator[None]:
        """A context in which this hook writes the checkpoints that the runner saves.

        Args:
            last: The file that names the checkpoint once it is complete. Defaults to None: no file.
        """
        written: list[str] = []

        def write(content: Any, path: str) -> None:
            written.append(path)
            self.finish()
            end = self._end_of_write(last, path)
            if self.background:
                self._thread.start(partial(_write, copy.deepcopy(content), path, end))
            else:
                _write(content, path, end)

        with writing_by(write):
            yield
        if last is not None and not written and dist.is_main_process():
            # DeepSpeed, or the backend of another address, has written it
            self._end_of_write(last, self.last_ckpt)()

    def _end_of_write(self, last: Path | None, path: str) -> Callable[[], None]:
        """What to do after a checkpoint is complete: name it, and delete those that it replaces."""
        outdated = [one for one in self._outdated if one not in (path, self.last_ckpt)]
        self._outdated.clear()
        name, is_main = self.last_ckpt, dist.is_main_process()

        def end() -> None:
            if last is not None and is_main:
                write_text(last, name, RESUME)
            for one in outdated:
                if self._backend.isfile(one):
                    self._backend.remove(one)
                elif self._backend.isdir(one):  # of DeepSpeed
                    self._backend.rmtree(one)

        return end


def _write(content: Any, path: str, end: Callable[[], None]) -> None:
    write_checkpoint(content, path, RESUME)
    end()


class _DeletesLater:
    """A file backend that only notes what it should delete.

    mmengine's hook deletes an old checkpoint before it saves the new one.

    Args:
        backend: The backend.
        noted: Gets the paths.
    """

    def __init__(self, backend: Any, noted: list[str]) -> None:
        self._backend, self._noted = backend, noted

    def remove(self, path: str) -> None:
        self._noted.append(str(path))

    def rmtree(self, path: str) -> None:
        self._noted.append(str(path))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)
