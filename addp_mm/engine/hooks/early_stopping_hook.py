# Copyright (c) addp_mm contributors. Apache-2.0.
"""Stop a training early, also after a resume."""

from __future__ import annotations

from mmengine.hooks import EarlyStoppingHook as _EarlyStoppingHook
from mmengine.runner import Runner

from addp_mm.engine.unwrap import is_resuming
from addp_mm.registry import HOOKS

STATE_KEY = 'early_stopping'


@HOOKS.register_module()
class EarlyStoppingHook(_EarlyStoppingHook):
    """mmengine's hook, with its best score and its patience in the checkpoints.

    mmengine's own hook starts to wait again after each resume. ``tools/train.py`` replaces it by
    this one. The arguments are those of :class:`mmengine.hooks.EarlyStoppingHook`.
    """

    # before CheckpointHook, which saves again after the best validation
    priority = 'LOW'

    def before_train(self, runner: Runner) -> None:
        """Stop at once if the resumed training was at its end, unless ``patience`` has grown."""
        if self.wait_count >= self.patience:
            runner.logger.info(f'{self.monitor} did not improve in the last {self.wait_count} validations')
            runner.train_loop.stop_training = True

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the state by the name of the metric."""
        state = checkpoint.setdefault(STATE_KEY, {})
        state[self.monitor] = dict(wait_count=self.wait_count, best_score=self.best_score)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Continue from the stored state on resume."""
        state = checkpoint.get(STATE_KEY, {}).get(self.monitor)
        if state and is_resuming(runner):
            self.wait_count, self.best_score = state['wait_count'], state['best_score']
