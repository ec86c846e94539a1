# Copyright (c) addp_mm contributors. Apache-2.0.
"""Save and end a training when a signal asks for it."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from typing import Any, NoReturn

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from addp_mm.engine.accumulated_gradients import would_be_lost
from addp_mm.engine.averages import end_averaged_validation
from addp_mm.engine.hooks.failures import TrainingCollapsedError, non_finite_weight
from addp_mm.engine.hooks.training_guard_hook import TrainingGuardHook
from addp_mm.engine.stop_checkpoint import StopCheckpoint
from addp_mm.registry import HOOKS
from addp_mm.stop_signals import GO_ON, TrainingStopped, keep_workers_running, signals, status_of


@HOOKS.register_module()
class StopHook(Hook):
    """Ends a training on SIGINT, SIGTERM and SIGUSR1, after it has saved.

    The running iteration is finished, with the update of the optimizer. Then a checkpoint of it is
    written, unless it was just saved, and the process ends with status 75 (SIGTERM, SIGUSR1) or 130
    (SIGINT, Ctrl-C). A second signal ends it at once. A validation stops after its batch; a resume
    runs it again from its start.

    All processes of a training stop after the same iteration, also if only one got the signal:
    they exchange one number in each iteration. If they have different numbers of validation
    batches, they stop after the validation. Where a checkpoint cannot hold the gradients of an
    unfinished optimizer step (sharded weights, DeepSpeed), the training stops after the step.

    The checkpoint is ``iter_N.pth``, and ``last_checkpoint`` names it. It does not count for
    ``max_keep_ckpts``: after a resume, it is removed when the next regular checkpoint is complete.

    Raises:
        TrainingStopped: A SystemExit, when the training has stopped.
        TrainingCollapsedError: A weight is NaN or Inf when it would be saved. Nothing is written.
    """

    # Runs last: the other hooks have finished the iteration.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._checkpoint = StopCheckpoint()
        self._is_training = False
        self._stops_in_validation = True
        self._passes = 0

    def before_train(self, runner: Runner) -> None:
        """Handle the signals from here on, and stop if one came while the training was prepared."""
        self._stack.enter_context(signals.handled())
        signals.is_awaited = self._is_training = True
        for loop in (runner.train_loop, runner.val_loop):
            loader = getattr(loop, 'dataloader', None)
            if isinstance(loader, DataLoader):
                keep_workers_running(loader)
        if received := self._received():
            self._stop(received, runner, f'before iteration {runner.iter + 1}; nothing was changed')

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop after this iteration; at the end of an epoch, other hooks finish the epoch first."""
        self._checkpoint.remove_replaced(runner)
        ends_epoch = hasattr(runner.train_loop, 'run_epoch') and self.end_of_epoch(runner.train_dataloader, batch_idx)
        if not ends_epoch and not would_be_lost(runner) and (received := self._received()):
            self._save_and_stop(received, runner, dict(epoch=runner.epoch, iter=runner.iter + 1))

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop after this epoch."""
        if hasattr(runner.train_loop, 'run_epoch') and (received := self._received()):
            self._save_and_stop(received, runner, dict(epoch=runner.epoch + 1, iter=runner.iter))

    def before_val_epoch(self, runner: Runner) -> None:
        """Find out whether all processes have the same number of batches."""
        self._passes = 0
        if not self._is_training:
            return
        loader = getattr(runner.val_loop, 'dataloader', None)
        lengths = dist.all_gather_object(len(loader) if isinstance(loader, DataLoader) else None)
        self._stops_in_validation = len(set(lengths)) == 1

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop within a validation. Only its own batches count, not those of another hook."""
        self._passes += batch_idx == 0
        if not (self._is_training and self._stops_in_validation and self._passes == 1) or would_be_lost(runner):
            return
        if received := self._received():
            end_averaged_validation(runner)
            runner.message_hub.update_info('loop_stage', 'train')
            self._save_and_stop(received, runner, dict(epoch=runner.epoch, iter=runner.iter))

    def after_val(self, runner: Runner) -> None:
        """Stop after a validation."""
        if self._is_training and not would_be_lost(runner) and (received := self._received()):
            self._save_and_stop(received, runner, dict(epoch=runner.epoch, iter=runner.iter))

    def after_train(self, runner: Runner) -> None:
        """A signal that comes now does not keep the training from its end."""
        self._is_training = False
        self._checkpoint.remove_replaced(runner)
        self._stack.close()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Mark the checkpoint of a stop."""
        self._checkpoint.mark(checkpoint)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember that the checkpoint of a stop is to be removed later."""
        self._checkpoint.note_loaded(runner, checkpoint)

    @staticmethod
    def _received() -> int:
        """The signal that some process got, or 0; all processes get the same."""
        number = torch.tensor(int(signals.received or 0))
        if dist.get_world_size() > 1:
            dist.all_reduce(number, 'max')
        return int(number)

    def _save_and_stop(self, received: int, runner: Runner, counts: dict) -> NoReturn:
        if name := non_finite_weight(runner.model):
            guard = next((hook for hook in runner.hooks if isinstance(hook, TrainingGuardHook)), TrainingGuardHook())
            raise TrainingCollapsedError(
                f'{signal.Signals(received).name} stops the training after iteration {counts["iter"]}, and {name} is '
                f'not finite: the checkpoint of this iteration is not written. {guard.advice(runner)}'
            )
        path = self._checkpoint.save(runner, counts)
        self._stop(received, runner, f'after iteration {counts["iter"]}; saved {path}')

    def _stop(self, received: int, runner: Runner, what: str) -> NoReturn:
        dist.barrier()  # no process ends before the checkpoint is complete: launchers would end the others
        signals.ignore()
        runner.visualizer.close()
        for worker in multiprocessing.active_children():  # at its end Python would wait for them
            worker.terminate()
        name = signal.Signals(received)
        if dist.is_main_process():
            print(f'stopped by {name.name} {what}; {GO_ON}', file=sys.stderr, flush=True)
        raise TrainingStopped(status_of(name))
