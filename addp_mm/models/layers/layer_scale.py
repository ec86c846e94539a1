# Copyright (c) addp_mm contributors. Apache-2.0.
"""Layer scale."""

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """Multiply each channel of a residual branch by a learned factor (CaiT, arXiv 2103.17239).

    Args:
        embed_dims (int): Number of channels.
        init_value (float): What every factor starts from.
    """

    def __init__(self, embed_dims: int, init_value: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((embed_dims,), float(init_value)))

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor): (..., embed_dims). Returns: Tensor: the same shape."""
        return x * self.gamma
