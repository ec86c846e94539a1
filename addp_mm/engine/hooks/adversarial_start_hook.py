# Copyright (c) addp_mm contributors. Apache-2.0.
"""Monitor the reconstructions of a tokenizer when its discriminator starts."""

from __future__ import annotations

import math
from collections import deque
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner

from addp_mm.config.config_file import ConfigError
from addp_mm.engine.hooks.checkpoint_hook import CheckpointHook
from addp_mm.engine.hooks.checkpoint_rollback import RollBackError, allow_rollback, checkpoint_hook, restore
from addp_mm.engine.hooks.failures import TrainingCollapsedError
from addp_mm.engine.unwrap import bare_model, is_resuming
from addp_mm.registry import HOOKS

STATE_KEY = 'adversarial_start'
_ACTIONS = ('warn', 'lower', 'rollback', 'stop')


@HOOKS.register_module()
class AdversarialStartHook(Hook):
    """Compares a tokenizer's reconstructions before and after the adversarial loss starts.

    It logs the mean PSNR of the last ``window`` training batches of all processes (``psnr_mean``).
    After the start it also logs the drop below the mean before the start (``psnr_drop``, dB). If
    the drop exceeds ``max_drop`` in the first ``watch`` iterations after the start, the hook acts,
    at most once per window:

    - 'warn': a warning in the log.
    - 'lower': the weight of the adversarial loss is multiplied by ``factor``.
    - 'rollback': training goes back to a checkpoint that the hook writes at the start, with the
      weight multiplied by ``factor``. Needs ``IterBasedTrainLoop``.
    - 'stop': :class:`~addp_mm.engine.hooks.TrainingCollapsedError` is raised.

    A non-finite PSNR does not count; :class:`~addp_mm.engine.hooks.TrainingGuardHook` acts on it.

    Args:
        action: One of these actions. Defaults to 'lower'.
        max_drop: Largest allowed drop in dB. Defaults to 1.0.
        window: Iterations of a mean. Defaults to 100.
        watch: Number of iterations after the start in which the hook acts on a drop; more than
            ``window``. Defaults to 2000.
        factor: Factor of the weight, in (0, 1). Defaults to 0.5.
        max_answers: Largest number of times that the weight is lowered; the next drop only warns
            ('lower') or stops the training ('rollback'). Defaults to 3.

    Raises:
        ValueError: An option is out of its range.
    """

    # Runs after the moving averages and schedulers, so that its own checkpoint at the start
    # contains a complete iteration, and before CheckpointHook (90), which saves what it gathers.
    priority = 80

    def __init__(
        self,
        action: str = 'lower',
        max_drop: float = 1.0,
        window: int = 100,
        watch: int = 2000,
        factor: float = 0.5,
        max_answers: int = 3,
    ) -> None:
        if action not in _ACTIONS:
            raise ValueError(f'action must be one of {_ACTIONS}, got {action!r}')
        if max_drop <= 0 or not 1 <= window < watch or not 0 < factor < 1 or max_answers < 1:
            raise ValueError(
                'max_drop must be positive, window at least 1 and less than watch, factor between 0 and 1 '
                f'and max_answers at least 1; got {max_drop}, {window}, {watch}, {factor}, {max_answers}'
            )
        self.action, self.max_drop = action, max_drop
        self.window, self.watch = window, watch
        self.factor, self.max_answers = factor, max_answers
        self.recent: deque[float] = deque(maxlen=window)
        self.before: float | None = None
        self.answers = 0
        self.start_checkpoint = ''

    def before_train(self, runner: Runner) -> None:
        """Check that the model has a discriminator, and that 'rollback' is possible."""
        model = bare_model(runner)
        if not hasattr(model, 'adversarial_scale'):
            raise TypeError(
                f'{type(model).__name__} has no discriminator; AdversarialStartHook belongs in the '
                'config of a VQGAN training only'
            )
        if model.iteration > model.schedule.counts_from and self.before is None:
            runner.logger.warning(
                f'the adversarial loss starts at iteration {model.schedule.counts_from}, and the '
                f'model was trained for {int(model.iteration)}: there is no earlier PSNR to compare with'
            )
        if self.action != 'rollback':
            return
        checkpoint_hook(runner)
        if hasattr(runner.train_loop, 'run_epoch'):
            raise ConfigError(
                "AdversarialStartHook(action='rollback') goes back to the middle of an epoch: train "
                "with train_cfg=dict(type='IterBasedTrainLoop', max_iters=…), or choose "
                "action='lower'"
            )
        allow_rollback(runner)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Log the mean PSNR and its drop, and act on a large drop."""
        model = bare_model(runner)
        shared = torch.tensor(float(outputs['psnr']), dtype=torch.float64)
        dist.all_reduce(shared, 'mean')
        psnr = shared.item()
        if math.isfinite(psnr):
            self.recent.append(psnr)
        if not self.recent:
            return
        mean = sum(self.recent) / len(self.recent)
        runner.message_hub.update_scalar('train/psnr_mean', mean)
        since = int(model.iteration) - model.schedule.counts_from
        if since == 0:
            self._note_start(runner, mean)
        elif since > 0 and self.before is not None:
            drop = self.before - mean
            runner.message_hub.update_scalar('train/psnr_drop', drop)
            if self.window <= since <= self.watch and len(self.recent) == self.window and drop > self.max_drop:
                self._answer(runner, drop)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the means, so that a resumed run acts as an uninterrupted one."""
        checkpoint[STATE_KEY] = dict(
            recent=list(self.recent), before=self.before, answers=self.answers, start_checkpoint=self.start_checkpoint
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Continue from the stored means on resume."""
        if STATE_KEY not in checkpoint or not is_resuming(runner):
            return
        state = checkpoint[STATE_KEY]
        self.recent = deque(state['recent'], maxlen=self.window)
        self.before, self.start_checkpoint = state['before'], state['start_checkpoint']
        self.answers = max(self.answers, state['answers'])

    def _note_start(self, runner: Runner, mean: float) -> None:
        self.before = mean
        self.recent.clear()
        runner.logger.info(
            f'the adversarial loss starts at iteration {runner.iter + 2}; the mean PSNR of the last '
            f'iterations is {mean:.2f} dB'
        )
        if self.action == 'rollback':
            self.start_checkpoint = f'before_discriminator_{runner.iter + 1}.pth'
            hook = checkpoint_hook(runner)
            with hook.with_gradients(runner) if isinstance(hook, CheckpointHook) else nullcontext():
                runner.save_checkpoint(runner.work_dir, self.start_checkpoint, by_epoch=False)

    def _answer(self, runner: Runner, drop: float) -> None:
        model = bare_model(runner)
        words = (
            f'iteration {runner.iter + 1}: since the adversarial loss started, the mean PSNR of {self.window} '
            f'iterations has fallen by {drop:.2f} dB from {self.before:.2f} dB'
        )
        if self.action == 'stop':
            raise TrainingCollapsedError(
                f'{words}. Lower adversarial_weight, lengthen schedule.alone and schedule.ramp, or '
                'add lecam_weight=0.001'
            )
        if self.action == 'rollback':
            if self.answers >= self.max_answers:
                raise TrainingCollapsedError(
                    f'{words}; {self.answers} rollback(s) did not help: lower adversarial_weight'
                )
            raise RollBackError(words, self._roll_back)
        # the next window starts empty
        self.recent.clear()
        if self.action == 'warn' or self.answers >= self.max_answers:
            runner.logger.warning(words)
            return
        self.answers += 1
        model.adversarial_scale.mul_(self.factor)
        runner.logger.warning(
            f'{words}; the adversarial loss is now multiplied by {model.adversarial_scale.item():.3g}'
        )

    def _roll_back(self, runner: Runner, failure: str) -> None:
        path = Path(runner.work_dir, self.start_checkpoint)
        if not path.is_file():
            raise TrainingCollapsedError(
                f'{failure}; {path}, which was written when the adversarial loss started, no longer exists'
            )
        self.answers += 1
        restore(runner, str(path))
        scale = bare_model(runner).adversarial_scale
        scale.fill_(self.factor**self.answers)
        runner.logger.warning(
            f'{failure}; went back to {path.name}, the adversarial loss is now multiplied by {scale.item():.3g} '
            f'(rollback {self.answers} of {self.max_answers})'
        )
