# Copyright (c) addp_mm contributors. Apache-2.0.
"""Stop a training whose loss or weights are non-finite."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner

from addp_mm.engine.hooks.failures import ADVICE, TrainingCollapsedError, refuse_non_finite_weights
from addp_mm.registry import HOOKS


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop training on all ranks at a non-finite loss, or before non-finite weights are saved.

    It is for trainings without :class:`~addp_mm.engine.hooks.GenerativePretrainHook` and
    :class:`~addp_mm.engine.hooks.AdversarialStartHook`, which have these checks. It reads 'loss'
    from the result of the model's ``train_step``.

    Raises:
        TrainingCollapsedError: The mean loss of all ranks, or a weight that would be saved, is
            non-finite.
    """

    # before LoggerHook and CheckpointHook
    priority = 'ABOVE_NORMAL'

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Check the loss, and the weights if they are saved now."""
        loss = torch.tensor(outputs['loss'].item(), dtype=torch.float64)
        dist.all_reduce(loss, 'mean')
        if not math.isfinite(loss.item()):
            raise TrainingCollapsedError(
                f'training failed at iteration {runner.iter + 1}: the loss is {loss.item()}. {ADVICE}'
            )
        refuse_non_finite_weights(self, runner, batch_idx)
