# Copyright (c) addp_mm contributors. Apache-2.0.
"""Name what a resumed training takes from its checkpoint instead of its config."""

from __future__ import annotations

from typing import Any

from mmengine._strategy import DeepSpeedStrategy
from mmengine.hooks import Hook
from mmengine.runner import Runner

from addp_mm.engine.resumed_best import keep_best
from addp_mm.engine.resumed_schedule import Part, Steps, parts_of, replace_schedule
from addp_mm.engine.unwrap import is_resuming
from addp_mm.registry import HOOKS


@HOOKS.register_module()
class ResumeHook(Hook):
    """Names what a resumed training takes from its checkpoint instead of its config.

    - mmengine continues with the optimizer settings (learning rate, weight decay, betas, …) and the
      schedules of the checkpoint. The hook logs each difference to the config. With
      ``override_schedule`` the config's are used: the learning rate at an iteration is that of a
      training with the new config from the start. The moments of the optimizer stay.
    - A checkpoint without an optimizer, such as ``best_*.pth``, continues with new moments and the
      schedules of the config at its iteration.
    - The best checkpoint of the work dir stays the best, also if the work dir was moved.

    Args:
        override_schedule: Whether to take the settings and schedules of the config. Defaults to
            False.

    Raises:
        ConfigError: The schedule of the config cannot be computed, or the saved optimizer has
            other groups of parameters.
    """

    # after PreflightHook, which names the differences of another model
    priority = 'LOWEST'

    def __init__(self, override_schedule: bool = False) -> None:
        self.override_schedule = override_schedule
        self._parts: list[Part] = []
        self._started = False

    def before_train(self, runner: Runner) -> None:
        """Note that the optimizer has been changed by the training from here on."""
        self._started = True

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare a checkpoint with the config before mmengine loads its optimizer.

        A rollback of a training that was not resumed keeps its own schedule.
        """
        strategy = getattr(runner, 'strategy', None)
        if not (is_resuming(runner) and {'meta', 'message_hub'} <= checkpoint.keys()):
            return  # PreflightHook refuses to resume from weights only
        keep_best(runner, checkpoint['message_hub'])
        if isinstance(strategy, DeepSpeedStrategy) or self._started and not self._parts:
            return  # DeepSpeed loads its optimizer itself
        self._parts = self._parts or parts_of(runner)
        replaced = self.override_schedule or 'optimizer' not in checkpoint
        for part in self._parts if not replaced else ():
            part.check_groups(_saved(checkpoint, part.name)[0])
        lines = [line for part in self._parts for line in part.differences(*_saved(checkpoint, part.name))]
        if 'optimizer' not in checkpoint:
            checkpoint['optimizer'] = (strategy.optim_state_dict if strategy else runner.optim_wrapper.state_dict)()
            runner.logger.warning(
                'the checkpoint has no optimizer: its moments start at zero, and the schedules continue at iteration '
                f'{checkpoint["meta"]["iter"]}'
            )
        if lines and not self._started:
            runner.logger.warning(
                f'the checkpoint and the config differ in {len(lines)} setting(s). '
                + (
                    'Training uses those of the config:'
                    if replaced
                    else 'Training uses those of the checkpoint; --override-schedule uses those of the config:'
                )
                + ''.join(f'\n    {line}' for line in lines)
            )
        if replaced:
            replace_schedule(checkpoint, self._parts, _steps(runner, checkpoint['meta']))


def _saved(checkpoint: dict, name: str) -> tuple[Any, Any]:
    """States of an optimizer and of its schedulers; None if the checkpoint has none."""
    optimizer, schedulers = checkpoint.get('optimizer'), checkpoint.get('param_schedulers')
    if name:
        optimizer, schedulers = (None if one is None else one.get(name) for one in (optimizer, schedulers))
    return optimizer if optimizer and 'param_groups' in optimizer else None, schedulers


def _steps(runner: Runner, meta: dict) -> Steps:
    epochs = meta['epoch'] if hasattr(runner.train_loop, 'run_epoch') else 0
    return Steps(meta['iter'], epochs, len(runner.train_dataloader))
