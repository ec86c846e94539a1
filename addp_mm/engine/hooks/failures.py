# Copyright (c) addp_mm contributors. Apache-2.0.
"""Detect a failed training by its weights before they are saved."""

from __future__ import annotations

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from addp_mm.checkpoints.finite import non_finite
from addp_mm.engine.unwrap import find_checkpoint_hook
from addp_mm.errors import UserError


class TrainingCollapsedError(UserError, RuntimeError):
    """A loss, gradient or weight is non-finite, or the training has collapsed."""


def saves_now(hook: Hook, runner: Runner, batch_idx: int) -> bool:
    """Whether this iteration ends with an interval checkpoint, or is the last iteration.

    Args:
        hook: Any hook, called in ``after_train_iter``.
        runner: Its runner.
        batch_idx: Index of the batch in the epoch.
    """
    if hook.is_last_train_iter(runner):
        return True
    saving = find_checkpoint_hook(runner)
    if saving is not None and saving.by_epoch:
        return hook.end_of_epoch(runner.train_dataloader, batch_idx)
    return saving is not None and hook.every_n_train_iters(runner, saving.interval)


def non_finite_weight(model: nn.Module) -> str | None:
    """Name of a trained weight that is NaN or Inf on some rank, the same on all ranks.

    Returns:
        The name, or None if all weights are finite.
    """
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    found, _ = next(non_finite(trained), (None, 0))
    return next(filter(None, dist.all_gather_object(found)), None)
