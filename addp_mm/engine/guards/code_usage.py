# Copyright (c) addp_mm contributors. Apache-2.0.
"""Detect a tokenizer that uses fewer and fewer of its codes."""

from __future__ import annotations

from collections import deque


class CodeUsageGuard:
    """Detect that the number of codes in use falls far below its best value so far.

    The number is the perplexity of the codes of a batch, which
    :class:`~addp_mm.models.selfsup.TokenizerPretrain` logs. Its ``codes_in_use`` counts all codes
    since the last restart, so that it rises although the codes collapse.

    Args:
        min_share: Smallest allowed running mean of the perplexity, as a share of its best value.
            Defaults to 0.2.
        window: Iterations of the running mean. Defaults to 200.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(self, min_share: float = 0.2, window: int = 200) -> None:
        if not 0 < min_share < 1 or window < 1:
            raise ValueError(f'min_share must be between 0 and 1 and window at least 1, got {min_share} and {window}')
        self.min_share, self.window = min_share, window
        self.recent: deque[float] = deque(maxlen=window)
        self.best = 0.0

    def check(self, perplexity: float) -> str | None:
        """Check the perplexity of one iteration.

        Returns:
            A description of the failure, or None.
        """
        self.recent.append(perplexity)
        if len(self.recent) < self.window:
            return None
        mean = sum(self.recent) / self.window
        if mean < self.min_share * self.best:
            return (
                f'the codebook collapses: the mean perplexity of the codes over the last {self.window} iterations is '
                f'{mean:.4g}, less than {self.min_share:g} of its best value {self.best:.4g}'
            )
        self.best = max(self.best, mean)
        return None

    def state(self) -> dict:
        """State for a checkpoint."""
        return dict(recent=list(self.recent), best=self.best)

    def load(self, state: dict) -> None:
        """Continue from :meth:`state`."""
        self.recent = deque(state['recent'], maxlen=self.window)
        self.best = state['best']
