# Copyright (c) addp_mm contributors. Apache-2.0.
"""Detect a failed training by its loss, and by its weights before they are saved."""

from __future__ import annotations

import math
from collections import deque

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from addp_mm.checkpoints.finite import non_finite
from addp_mm.engine.unwrap import find_checkpoint_hook
from addp_mm.errors import UserError

ADVICE = (
    'Resume from the last checkpoint with a lower learning rate or stronger gradient clipping (optim_wrapper.clip_grad)'
)


class TrainingCollapsedError(UserError, RuntimeError):
    """The loss or a weight is non-finite, or the running mean of the loss shows a collapse."""


class LossGuard:
    """Monitor the loss, and detect that a training has failed.

    A non-finite loss fails at once. A collapse shows in the mean over ``window`` iterations,
    because the loss of a single iteration depends on its noise level.

    Args:
        max_rise: Largest difference between the running mean and its lowest value so far, in nats.
            Defaults to 1.0.
        floor: Smallest allowed running mean: a soft cross entropy below it shows a shortcut.
            Defaults to 1e-3.
        window: Iterations of the running mean. Defaults to 100.

    Raises:
        ValueError: The window or the rise is not positive.
    """

    def __init__(self, max_rise: float = 1.0, floor: float = 1e-3, window: int = 100) -> None:
        if window < 1 or max_rise <= 0:
            raise ValueError(f'window and max_rise must be positive, got window={window}, max_rise={max_rise}')
        self.max_rise, self.floor, self.window = max_rise, floor, window
        self.recent: deque[float] = deque(maxlen=window)
        self.lowest = math.inf

    def check(self, loss: float) -> str | None:
        """Check the loss of one iteration.

        Returns:
            A description of the failure, or None.
        """
        if not math.isfinite(loss):
            return f'the loss is {loss}'
        self.recent.append(loss)
        if len(self.recent) < self.window:
            return None
        mean = sum(self.recent) / self.window
        start = f'the mean loss of the last {self.window} iterations, {mean:.4g}, is'
        if mean < self.floor:
            return f'{start} below the floor {self.floor}'
        if mean > self.lowest + self.max_rise:
            return f'{start} more than {self.max_rise} above its lowest value {self.lowest:.4g}'
        self.lowest = min(self.lowest, mean)
        return None

    def state(self) -> dict:
        """State for a checkpoint, so that a resumed run acts as an uninterrupted one."""
        return dict(recent=list(self.recent), lowest=self.lowest)

    def load(self, state: dict) -> None:
        """Continue from :meth:`state`."""
        self.recent = deque(state['recent'], maxlen=self.window)
        self.lowest = state['lowest']


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


def refuse_non_finite_weights(hook: Hook, runner: Runner, batch_idx: int) -> None:
    """Stop training, on all ranks, if non-finite weights would be saved now.

    A finite loss does not guarantee finite weights: the optimizer's step follows it.

    Args:
        hook: Any hook, called in ``after_train_iter``.
        runner: Its runner.
        batch_idx: Index of the batch in the epoch.

    Raises:
        TrainingCollapsedError: A weight is non-finite.
    """
    name = non_finite_weight(runner.model) if saves_now(hook, runner, batch_idx) else None
    if name is not None:
        raise TrainingCollapsedError(
            f'training failed at iteration {runner.iter + 1}: {name} is not finite after this '
            f'step, though the loss before it was; nothing was saved. {ADVICE}'
        )
