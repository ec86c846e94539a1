# Copyright (c) addp_mm contributors. Apache-2.0.
"""Stochastic depth."""

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Drop a residual branch, sample by sample, while training ("Deep Networks with Stochastic Depth", 2016).

    Args:
        drop_prob (float): Probability that a sample's branch is dropped; branches that are kept are
            scaled by ``1 / (1 - drop_prob)``. In [0, 1). Defaults to 0.

    Raises:
        ValueError: ``drop_prob`` is outside [0, 1).
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= drop_prob < 1.0:
            raise ValueError(f'drop_path_rate must be at least 0 and less than 1, got {drop_prob}')
        self.drop_prob = float(drop_prob)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor): (B, ...). Returns: Tensor: the same shape."""
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep_prob = 1.0 - self.drop_prob
        keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep_prob)
        return x * torch.div(keep, keep_prob)

    def extra_repr(self) -> str:
        """The probability, for ``print(model)``."""
        return f'drop_prob={self.drop_prob:.3f}'
