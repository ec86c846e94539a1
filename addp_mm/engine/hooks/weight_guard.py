# Copyright (c) addp_mm contributors. Apache-2.0.
"""Looks at the weights before they are saved: a finite loss says nothing of the step that followed it."""

from __future__ import annotations

from mmengine import dist
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from torch import nn

from addp_mm.engine.hooks.loss_guard import TrainingCollapsed


def saves_now(hook: Hook, runner: Runner, batch_idx: int) -> bool:
    """Whether this iteration ends with an interval checkpoint, or is the last one.

    Args:
        hook: Any hook, called in ``after_train_iter``.
        runner: Its runner.
        batch_idx: Index of the batch in the epoch.
    """
    if hook.is_last_train_iter(runner):
        return True
    for saving in runner.hooks:
        if isinstance(saving, CheckpointHook):
            if saving.by_epoch:
                return hook.end_of_epoch(runner.train_dataloader, batch_idx)
            return hook.every_n_train_iters(runner, saving.interval)
    return False


def spoilt_weight(model: nn.Module) -> str | None:
    """Name of a trained weight that is not finite on some rank, the same on all ranks; None if all are."""
    found = next(
        (
            name
            for name, weight in model.named_parameters()
            if weight.requires_grad and not weight.detach().isfinite().all()
        ),
        None,
    )
    return next(filter(None, dist.all_gather_object(found)), None)


def refuse_spoilt_weights(hook: Hook, runner: Runner, batch_idx: int) -> None:
    """Stop training, on all ranks, where weights that are not finite would be saved now.

    Raises:
        TrainingCollapsed: A weight is not finite.
    """
    name = spoilt_weight(runner.model) if saves_now(hook, runner, batch_idx) else None
    if name is not None:
        raise TrainingCollapsed(
            f'training failed at iteration {runner.iter + 1}: {name} is not finite after this '
            'step, though the loss before it was; nothing was saved. Resume from the last '
            'checkpoint with a lower learning rate or stronger gradient clipping '
            '(optim_wrapper.clip_grad)'
        )
