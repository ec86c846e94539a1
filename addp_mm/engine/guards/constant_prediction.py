# Copyright (c) addp_mm contributors. Apache-2.0.
"""Detect a model of tokens that predicts the same distribution everywhere."""

from __future__ import annotations

from collections import deque


class ConstantPredictionGuard:
    """Detect that the loss stays at that of the best constant prediction.

    A model that ignores its input can still learn how frequent each code is. Its loss is then the
    entropy of these frequencies, which the models of tokens log as ``constant_prediction``
    (:func:`~addp_mm.models.losses.constant_prediction.constant_prediction`). The frequencies of a
    single batch are estimates, so both values are averaged over ``window`` iterations.

    Args:
        margin: A training learns if its mean loss is at least so far below that of the constant
            prediction, in nats. Defaults to 0.02.
        window: Iterations of the means. Defaults to 200.
        after: Share of the training's iterations before which nothing is checked, because every
            training starts with the frequencies. Defaults to 0.2.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(self, margin: float = 0.02, window: int = 200, after: float = 0.2) -> None:
        if margin < 0 or window < 1 or not 0 <= after <= 1:
            raise ValueError(
                'margin must not be negative, window must be at least 1 and after between 0 and 1; '
                f'got {margin}, {window} and {after}'
            )
        self.margin, self.window, self.after = margin, window, after
        self.gains: deque[float] = deque(maxlen=window)

    def check(self, loss: float, constant: float, iteration: int, max_iters: int) -> str | None:
        """Check the loss of one iteration.

        Args:
            loss: Loss of the model, in nats.
            constant: Loss of the best constant prediction, in nats.
            iteration: Number of the iteration, counted from 1.
            max_iters: Iterations of the training.

        Returns:
            A description of the failure, or None.
        """
        self.gains.append(constant - loss)
        if len(self.gains) < self.window or iteration < max(self.after * max_iters, 1):
            return None
        gain = sum(self.gains) / self.window
        if gain >= self.margin:
            return None
        return (
            f'the loss stays at that of a constant prediction: its mean over the last {self.window} iterations is '
            f'{abs(gain):.4g} nats {"below" if gain >= 0 else "above"} the entropy of the code frequencies, so the '
            'model ignores its input'
        )

    def state(self) -> dict:
        """State for a checkpoint."""
        return dict(gains=list(self.gains))

    def load(self, state: dict) -> None:
        """Continue from :meth:`state`."""
        self.gains = deque(state['gains'], maxlen=self.window)
