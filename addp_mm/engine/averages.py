# Copyright (c) addp_mm contributors. Apache-2.0.
"""Use the averaged weights that checkpoints contain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.hooks import EMAHook
from mmengine.runner import Runner


@contextmanager
def averaged_weights(runner: Runner) -> Iterator[None]:
    """A context in which the model has the averages of EMAHook, which checkpoints contain.

    Without an EMAHook nothing changes. At its end the model has the weights of the training.

    Args:
        runner: A runner in training, after EMAHook has updated the averages of this iteration: a
            hook that uses this in ``after_train_iter`` needs the priority 'LOW' or a lower one.
    """
    hooks = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    # mmengine's own method: mmpretrain's hook may be set to validate the weights of the training
    for hook in hooks:
        EMAHook.before_val_epoch(hook, runner)
    try:
        yield
    finally:
        for hook in reversed(hooks):
            EMAHook.after_val_epoch(hook, runner)


def end_averaged_validation(runner: Runner) -> None:
    """Give the model the weights of the training again, in a validation that does not end.

    Args:
        runner: A runner between ``before_val_epoch`` and ``after_val_epoch``.
    """
    for hook in reversed(runner.hooks):
        # mmpretrain's hook may validate the weights of the training; its own method validates again
        if isinstance(hook, EMAHook) and getattr(hook, 'evaluate_on_ema', True):
            EMAHook.after_val_epoch(hook, runner)
