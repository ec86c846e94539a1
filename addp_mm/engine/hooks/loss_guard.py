# Copyright (c) addp_mm contributors. Apache-2.0.
"""Tells when a training loss shows that the run is lost."""

from __future__ import annotations

import math
from collections import deque

from addp_mm.errors import UserError


class TrainingCollapsed(UserError, RuntimeError):
    """The loss is not finite, or its running mean shows a collapse."""


class LossGuard:
    """Watches the loss and says when, and why, training has failed.

    A loss that is not finite fails at once. A collapse shows in the mean over ``window``
    iterations, because the loss of a single iteration depends on its noise level.

    Args:
        max_rise: The running mean may lie this far (in nats) above its lowest value so far. None:
            not checked.
        floor: The running mean must not fall below this value: a soft cross entropy that does has
            found a shortcut. None: not checked.
        window: Iterations of the running mean.

    Raises:
        ValueError: If the window or the rise is not positive.
    """

    def __init__(self, max_rise: float | None = 1.0, floor: float | None = 1e-3, window: int = 100) -> None:
        if window < 1 or (max_rise is not None and max_rise <= 0):
            raise ValueError(f'window and max_rise must be positive, got window={window}, max_rise={max_rise}')
        self.max_rise, self.floor, self.window = max_rise, floor, window
        self.recent: deque[float] = deque(maxlen=window)
        self.lowest = math.inf

    def check(self, loss: float) -> str | None:
        """Take the loss of one iteration.

        Returns:
            None, or what is wrong in words.
        """
        if not math.isfinite(loss):
            return f'the loss is {loss}'
        self.recent.append(loss)
        if len(self.recent) < self.window:
            return None
        mean = sum(self.recent) / self.window
        if self.floor is not None and mean < self.floor:
            return f'the mean loss of the last {self.window} iterations, {mean:.4g}, lies below the floor {self.floor}'
        if self.max_rise is not None and mean > self.lowest + self.max_rise:
            return (
                f'the mean loss of the last {self.window} iterations, {mean:.4g}, lies more than {self.max_rise} '
                f'above its lowest value {self.lowest:.4g}'
            )
        self.lowest = min(self.lowest, mean)
        return None

    def state(self) -> dict:
        """What a checkpoint keeps, so that a resumed run judges as an uninterrupted one."""
        return dict(recent=list(self.recent), lowest=self.lowest)

    def load(self, state: dict) -> None:
        """Continue from :meth:`state`."""
        self.recent = deque(state['recent'], maxlen=self.window)
        self.lowest = state['lowest']
