# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run the validation that an interrupted training has not finished."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from addp_mm.engine.unwrap import is_resuming
from addp_mm.registry import HOOKS

STATE_KEY = 'validated'


@HOOKS.register_module()
class PendingValidationHook(Hook):
    """Runs the validation that was due at the checkpoint from which a training resumes.

    mmengine saves before it validates. If the training ends before the validation has ended,
    mmengine's resume leaves this validation out: its metrics, the best checkpoint,
    ``ReduceOnPlateauLR`` and early stopping then differ from an uninterrupted training. A
    checkpoint that was saved after the validation says so, and it is not run again.
    """

    # after the hooks that use the metrics; before CheckpointHook, which saves a best one again
    priority = 'LOW'

    def __init__(self) -> None:
        self._validated: int | None = None
        self._is_known = False

    def before_run(self, runner: Runner) -> None:
        """Let the validation run after ``before_train`` of all hooks."""
        runner.register_hook(_Last(self), priority='LOWEST')

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note what the checkpoint says; those of earlier versions say nothing."""
        if is_resuming(runner):
            self._is_known, self._validated = STATE_KEY in checkpoint, checkpoint.get(STATE_KEY)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Note that this iteration or epoch is validated."""
        self._validated = _count(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the last iteration or epoch that was validated."""
        checkpoint[STATE_KEY] = self._validated

    def run_pending(self, runner: Runner) -> None:
        """Validate, if a resumed training has not done so at its checkpoint."""
        if self._is_known and runner.iter and self._validated != _count(runner) and _is_due(runner):
            runner.logger.info(f'the validation after iteration {runner.iter} had not ended: it is run now')
            self._validate(runner)

    @staticmethod
    def _validate(runner: Runner) -> None:
        """Validate with the counts of the iteration that ended: a best checkpoint has them."""
        hub, by_epoch = runner.message_hub, hasattr(runner.train_loop, 'run_epoch')
        before = dict(epoch=runner.epoch, iter=runner.iter)
        for name, value in dict(epoch=runner.epoch - by_epoch, iter=runner.iter - 1).items():
            hub.update_info(name, value)
        runner.val_loop.run()
        for name, value in before.items():
            hub.update_info(name, value)


class _Last(Hook):
    """Calls :class:`PendingValidationHook` when all hooks are ready."""

    def __init__(self, owner: PendingValidationHook) -> None:
        self._owner = owner

    def before_train(self, runner: Runner) -> None:
        self._owner.run_pending(runner)


def _count(runner: Runner) -> int:
    return runner.epoch if hasattr(runner.train_loop, 'run_epoch') else runner.iter


def _is_due(runner: Runner) -> bool:
    loop: Any = runner.train_loop
    if runner.val_loop is None or not hasattr(loop, 'val_interval'):
        return False
    loop._decide_current_val_interval()  # noqa: SLF001  # of dynamic_intervals; mmengine has no public way
    count, last = _count(runner), loop.max_epochs if hasattr(loop, 'run_epoch') else loop.max_iters
    return count >= loop.val_begin and (count % loop.val_interval == 0 or count == last)
