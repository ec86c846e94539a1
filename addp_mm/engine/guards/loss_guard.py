# Copyright (c) addp_mm contributors. Apache-2.0.
"""Detect a collapse by the running mean of the loss."""

from __future__ import annotations

import math
from collections import deque


class LossGuard:
    """Detect that the running mean of the loss rises, or falls below a floor.

    A collapse shows in the mean over ``window`` iterations, because the loss of a single iteration
    depends on its noise level.

    Args:
        max_rise: Largest difference between the running mean and its lowest value so far, in the
            unit of the loss (nats for tokens). Defaults to 1.0.
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
        """Check the finite loss of one iteration.

        Returns:
            A description of the failure, or None.
        """
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
