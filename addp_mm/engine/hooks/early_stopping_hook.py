# Copyright (c) addp_mm contributors. Apache-2.0.
"""Stop a training early, also after a resume."""

from __future__ import annotations

from math import isfinite

from mmengine.hooks import EarlyStoppingHook as _EarlyStoppingHook
from mmengine.runner import Runner

from addp_mm.engine.unwrap import is_resuming
from addp_mm.registry import HOOKS

STATE_KEY = 'early_stopping'


@HOOKS.register_module()
class EarlyStoppingHook(_EarlyStoppingHook):
    """mmengine's hook, with its best and last score and its patience in the checkpoints.

    mmengine's own hook starts to wait again after each resume, and a training that it has stopped
    goes on. ``tools/train.py`` replaces it by this one. The arguments are those of
    :class:`mmengine.hooks.EarlyStoppingHook`.
    """

    # before CheckpointHook, which saves again after the best validation
    priority = 'LOW'

    _last_score: float | None = None  # of the last validation

    def before_train(self, runner: Runner) -> None:
        """Stop at once if the resumed training was at its end, unless the limits have changed."""
        if self.wait_count >= self.patience:
            runner.logger.info(f'{self.monitor} did not improve in the last {self.wait_count} validations')
            runner.train_loop.stop_training = True
        elif self._last_score is not None and self._ends(self._last_score):
            runner.logger.info(f'{self.monitor} was {self._last_score} in the last validation')
            runner.train_loop.stop_training = True

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Keep the score, and decide whether to stop."""
        super().after_val_epoch(runner, metrics)
        if metrics and self.monitor in metrics:
            self._last_score = float(metrics[self.monitor])

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the state by the name of the metric."""
        state = checkpoint.setdefault(STATE_KEY, {})
        state[self.monitor] = dict(wait_count=self.wait_count, best_score=self.best_score, last_score=self._last_score)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Continue from the stored state on resume."""
        state = checkpoint.get(STATE_KEY, {}).get(self.monitor)
        if state and is_resuming(runner):
            self.wait_count, self.best_score = state['wait_count'], state['best_score']
            self._last_score = state.get('last_score')

    def _ends(self, score: float) -> bool:
        """Whether this score alone ends the training."""
        if not isfinite(score):
            return self.check_finite
        return self.stopping_threshold is not None and self.rule_map[self.rule](score, self.stopping_threshold)
