# Copyright (c) addp_mm contributors. Apache-2.0.
"""The transformer's feed-forward part."""

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear, exact GELU, dropout, linear, dropout.

    Args:
        embed_dims (int): Width of input and output.
        hidden_dims (int): Width in between.
        drop_rate (float): Dropout after the activation and after the second linear layer. Defaults
            to 0.
    """

    def __init__(self, embed_dims: int, hidden_dims: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, hidden_dims)
        self.act = nn.GELU()
        self.drop1 = nn.Dropout(drop_rate)
        self.fc2 = nn.Linear(hidden_dims, embed_dims)
        self.drop2 = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (Tensor): (..., embed_dims). Returns: Tensor: the same shape."""
        return self.drop2(self.fc2(self.drop1(self.act(self.fc1(x)))))
