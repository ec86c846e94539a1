# Copyright (c) addp_mm contributors. Apache-2.0.
"""Detect a loss scale that diverges."""

from __future__ import annotations


class LossScaleGuard:
    """Detect that float16 training finds no loss scale with finite gradients.

    Infinite gradients are normal in float16: the scaler then leaves out the step and halves the
    scale. A scale that falls without end shows that the gradients are infinite at any scale.

    Args:
        min_scale: Smallest allowed loss scale. Defaults to 1.0.
        max_skips: Largest number of steps in a row that the scaler may leave out. Defaults to 20.

    Raises:
        ValueError: An option is not positive.
    """

    def __init__(self, min_scale: float = 1.0, max_skips: int = 20) -> None:
        if min_scale <= 0 or max_skips < 1:
            raise ValueError(f'min_scale and max_skips must be positive, got {min_scale} and {max_skips}')
        self.min_scale, self.max_skips = min_scale, max_skips
        self.last: float | None = None
        self.skips = 0

    def check(self, scale: float, stepped: bool) -> str | None:
        """Check the scale after an iteration.

        Args:
            scale: The scale now; the smallest of several.
            stepped: Whether the iteration ended with a step, or with one that was left out.

        Returns:
            A description of the failure, or None.
        """
        fell = self.last is not None and scale < self.last
        self.last = scale
        if stepped:
            self.skips = self.skips + 1 if fell else 0
        if scale < self.min_scale:
            return f'the loss scale fell to {scale:g}, below {self.min_scale:g}: the gradients overflow at any scale'
        if self.skips >= self.max_skips:
            return f'the gradients were infinite in {self.skips} steps in a row; the loss scale fell to {scale:g}'
        return None

    def state(self) -> dict:
        """State for a checkpoint."""
        return dict(last=self.last, skips=self.skips)

    def load(self, state: dict) -> None:
        """Continue from :meth:`state`."""
        self.last, self.skips = state['last'], state['skips']
