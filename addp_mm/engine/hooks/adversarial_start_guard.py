# Copyright (c) addp_mm contributors. Apache-2.0.
from __future__ import annotations

import math
from collections import deque
from pathlib import Path

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner

from addp_mm.config.config_file import ConfigError
from addp_mm.engine.hooks.checkpoint_rollback import RollBack, checkpoint_hook, on_rollback, restore
from addp_mm.engine.hooks.loss_guard import TrainingCollapsed
from addp_mm.engine.hooks.weight_guard import refuse_spoilt_weights
from addp_mm.engine.unwrap import bare_model
from addp_mm.registry import HOOKS

STATE_KEY = 'adversarial_start'
_ACTIONS = ('warn', 'lower', 'rollback', 'stop')


@HOOKS.register_module()
class AdversarialStartGuard(Hook):
    """Compares a tokenizer's reconstructions before and after its discriminator begins to count.

    The mean PSNR of the last ``window`` training batches of all processes is logged
    (``psnr_mean``); with it, from the start on, how far it lies below the mean before the start
    (``psnr_drop``, dB). A drop of more than ``max_drop`` is answered once a window, until ``watch``
    iterations after the start:

    - 'warn': a warning in the log.
    - 'lower': the weight of the adversarial loss is multiplied by ``factor``.
    - 'rollback': training goes back to a checkpoint that the hook writes at the start, with the
      weight multiplied by ``factor``. Needs ``IterBasedTrainLoop``.
    - 'stop': :class:`~addp_mm.engine.hooks.TrainingCollapsed` is raised.

    A PSNR that is not finite always stops the training.

    Args:
        action: One of these.
        max_drop: In dB.
        window: Iterations of a mean.
        watch: Iterations after the start in which drops are answered; longer than ``window``.
        factor: In (0, 1).
        max_answers: So many times weight is taken away; the next drop only warns ('lower') or stops
            ('rollback').

    Raises:
        ValueError: If an option is out of its range.
    """

    # behind the schedulers, moving averages and checkpoints: what it writes at the start is a whole
    # iteration
    priority = 'LOWEST'

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
        model = bare_model(runner)
        if not hasattr(model, 'adversarial_scale'):
            raise TypeError(
                f'{type(model).__name__} has no discriminator; AdversarialStartGuard belongs into the '
                'config of a VQGAN training alone'
            )
        if model.iteration > model.schedule.counts_from and self.before is None:
            runner.logger.warning(
                f'the discriminator counts from iteration {model.schedule.counts_from} on, and the '
                f'model has had {int(model.iteration)}: there is no PSNR from before to compare with'
            )
        if self.action != 'rollback':
            return
        checkpoint_hook(runner)
        if hasattr(runner.train_loop, 'run_epoch'):
            raise ConfigError(
                "AdversarialStartGuard(action='rollback') goes back to the middle of an epoch: train "
                "with train_cfg=dict(type='IterBasedTrainLoop', max_iters=…), or choose "
                "action='lower'"
            )
        on_rollback(runner, self._roll_back)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        model = bare_model(runner)
        psnr = torch.tensor(float(outputs['psnr']), dtype=torch.float64)
        dist.all_reduce(psnr, 'mean')
        psnr = psnr.item()
        if not math.isfinite(psnr):
            raise TrainingCollapsed(
                f'the PSNR of iteration {runner.iter + 1} is {psnr}: lower the learning rates, or '
                'clip the gradients (clip_grad in each part of optim_wrapper)'
            )
        refuse_spoilt_weights(self, runner, batch_idx)
        self.recent.append(psnr)
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
        checkpoint[STATE_KEY] = dict(
            recent=list(self.recent), before=self.before, answers=self.answers, start_checkpoint=self.start_checkpoint
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if STATE_KEY not in checkpoint or not runner._resume:
            return
        state = checkpoint[STATE_KEY]
        self.recent = deque(state['recent'], maxlen=self.window)
        self.before, self.start_checkpoint = state['before'], state['start_checkpoint']
        self.answers = max(self.answers, state['answers'])

    def _note_start(self, runner: Runner, mean: float) -> None:
        self.before = mean
        self.recent.clear()
        runner.logger.info(
            f'from iteration {runner.iter + 2} on the discriminator counts; mean PSNR of the last '
            f'iterations {mean:.2f} dB'
        )
        if self.action == 'rollback':
            self.start_checkpoint = f'before_discriminator_{runner.iter + 1}.pth'
            runner.save_checkpoint(runner.work_dir, self.start_checkpoint, by_epoch=False)

    def _answer(self, runner: Runner, drop: float) -> None:
        model = bare_model(runner)
        words = (
            f'iteration {runner.iter + 1}: since the discriminator counts, the mean PSNR of {self.window} '
            f'iterations has fallen by {drop:.2f} dB from {self.before:.2f} dB'
        )
        if self.action == 'stop':
            raise TrainingCollapsed(
                f'{words}. Lower adversarial_weight, lengthen schedule.alone and schedule.ramp, or '
                'add lecam_weight=0.001'
            )
        if self.action == 'rollback':
            if self.answers >= self.max_answers:
                raise TrainingCollapsed(f'{words}; {self.answers} rollback(s) did not help: lower adversarial_weight')
            raise RollBack(words)
        # the next window is judged by itself
        self.recent.clear()
        if self.action == 'warn' or self.answers >= self.max_answers:
            runner.logger.warning(words)
            return
        self.answers += 1
        model.adversarial_scale.mul_(self.factor)
        runner.logger.warning(f'{words}; the adversarial loss now counts {model.adversarial_scale.item():.3g} times')

    def _roll_back(self, runner: Runner, failure: str) -> None:
        path = Path(runner.work_dir, self.start_checkpoint)
        if not path.is_file():
            raise TrainingCollapsed(f'{failure}; {path}, written when the discriminator began to count, is gone')
        self.answers += 1
        restore(runner, str(path))
        scale = bare_model(runner).adversarial_scale
        scale.fill_(self.factor**self.answers)
        runner.logger.warning(
            f'{failure}; went back to {path.name}, the adversarial loss counts {scale.item():.3g} '
            f'times (rollback {self.answers} of {self.max_answers})'
        )
