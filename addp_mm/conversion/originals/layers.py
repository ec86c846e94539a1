# Copyright (c) addp_mm contributors. Apache-2.0.
"""Layers that are computed from a state dict of another project, with its names."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from addp_mm.layouts.key_rules import count, without_prefix


class OriginalLayers:
    """The layers of original implementations.

    Args:
        state_dict: Weights under their original names.
        prefix: Only keys with this prefix are used; it is removed. Defaults to ''.
    """

    def __init__(self, state_dict: Mapping[str, Tensor], prefix: str = '') -> None:
        self.weights = without_prefix(state_dict, prefix)

    def __contains__(self, name: str) -> bool:
        """Whether the layer has a weight."""
        return f'{name}.weight' in self.weights

    def __getitem__(self, key: str) -> Tensor:
        """A weight in float32.

        Raises:
            ValueError: The weight is missing.
        """
        if key not in self.weights:
            raise ValueError(f'the checkpoint has no {key}, which the original implementation uses')
        return self.weights[key].float()

    def count(self, pattern: str) -> int:
        """Number of different indices in the pattern's group, at the start of the keys."""
        return count(self.weights, pattern)

    def pair(self, name: str) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of a layer. The bias is None if the layer has none."""
        return self[f'{name}.weight'], self[f'{name}.bias'] if f'{name}.bias' in self.weights else None

    def linear(self, name: str, x: Tensor) -> Tensor:
        """Linear layer, (…, C) -> (…, D)."""
        return F.linear(x, *self.pair(name))

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int | None = None) -> Tensor:
        """Convolution, (B, C, H, W) -> (B, D, H', W'). The padding defaults to half the kernel."""
        weight, bias = self.pair(name)
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2 if padding is None else padding)

    def layer_norm(self, name: str, x: Tensor, eps: float = 1e-6) -> Tensor:
        """LayerNorm over the last dimension."""
        return F.layer_norm(x, x.shape[-1:], *self.pair(name), eps)

    def blocks(self, name: str, x: Tensor, num_heads: int) -> Tensor:
        """All pre-norm transformer blocks of a name, ``blocks.0``, …, applied to (B, N, C)."""
        for index in range(self.count(rf'{name}\.(\d+)\.')):
            block = f'{name}.{index}'
            x = x + self._attention(f'{block}.attn', self.layer_norm(f'{block}.norm1', x), num_heads)
            hidden = F.gelu(self.linear(f'{block}.mlp.fc1', self.layer_norm(f'{block}.norm2', x)))
            x = x + self.linear(f'{block}.mlp.fc2', hidden)
        return x

    def _attention(self, name: str, x: Tensor, num_heads: int) -> Tensor:
        query, key, value = self.linear(f'{name}.qkv', x).unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        return self.linear(f'{name}.proj', (scores.softmax(-1) @ value).transpose(1, 2).flatten(2))

    def words(self, name: str, x: Tensor, embeddings: Tensor) -> Tensor:
        """Logits of the head of MAGE and ADDP, whose output layer is the word embeddings.

        Args:
            name: Name of the head.
            x: (B, N, C).
            embeddings: (vocabulary, C).

        Returns:
            (B, N, vocabulary).
        """
        hidden = self.layer_norm(f'{name}.ln', F.gelu(self.linear(f'{name}.fc', x)), eps=1e-5)
        return hidden @ embeddings.t() + self[f'{name}.bias'].flatten()
