# Copyright (c) addp_mm contributors. Apache-2.0.
from __future__ import annotations

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner

from addp_mm.engine.hooks.loss_guard import LossGuard, TrainingCollapsed
from addp_mm.engine.hooks.weight_guard import refuse_spoilt_weights
from addp_mm.registry import HOOKS


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops training at a loss, or weights about to be saved, that are not finite, on all ranks, before they are saved.

    For trainings without :class:`~addp_mm.engine.hooks.GenerativePretrainHook` and
    :class:`~addp_mm.engine.hooks.AdversarialStartGuard`, which do so themselves. It reads 'loss' of
    what the model's ``train_step`` returns.

    Raises:
        TrainingCollapsed: The mean loss of all ranks, or a weight that would be saved, is not
            finite.
    """

    # before LoggerHook and CheckpointHook
    priority = 'ABOVE_NORMAL'

    def __init__(self) -> None:
        self.guard = LossGuard(max_rise=None, floor=None, window=1)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        loss = torch.tensor(outputs['loss'].item(), dtype=torch.float64)
        dist.all_reduce(loss, 'mean')
        reason = self.guard.check(loss.item())
        if reason is not None:
            raise TrainingCollapsed(
                f'training failed at iteration {runner.iter + 1}: {reason}. Resume from the last '
                'checkpoint with a lower learning rate or stronger gradient clipping '
                '(optim_wrapper.clip_grad)'
            )
        refuse_spoilt_weights(self, runner, batch_idx)
