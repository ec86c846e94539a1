# Copyright (c) addp_mm contributors. Apache-2.0.
"""Layers run straight from a foreign state dict, by its own names: no module of this package takes part."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from addp_mm.layouts.key_rules import count


class OriginalLayers:
    """The layers of which original implementations consist.

    Args:
        state_dict: Weights under their original names.
        prefix: Only keys that start so are taken, without it.
    """

    def __init__(self, state_dict: Mapping[str, Tensor], prefix: str = '') -> None:
        self.weights = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}

    def __contains__(self, name: str) -> bool:
        return f'{name}.weight' in self.weights

    def __getitem__(self, key: str) -> Tensor:
        """Float32. Raises ValueError where there is no such weight."""
        if key not in self.weights:
            raise ValueError(f'the original implementation finds no {key}')
        return self.weights[key].float()

    def count(self, pattern: str) -> int:
        """How many numbers stand in the group of a pattern, from 0 upwards."""
        return count(self.weights, pattern)

    def pair(self, name: str) -> tuple[Tensor, Tensor | None]:
        """Weight, and bias where there is one."""
        return self[f'{name}.weight'], self[f'{name}.bias'] if f'{name}.bias' in self.weights else None

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, *self.pair(name))

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int | None = None) -> Tensor:
        weight, bias = self.pair(name)
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2 if padding is None else padding)

    def layer_norm(self, name: str, x: Tensor, eps: float = 1e-6) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], *self.pair(name), eps)

    def blocks(self, name: str, x: Tensor, num_heads: int) -> Tensor:
        """All transformer blocks (norm first) of a name, ``blocks.0``, ``blocks.1``, …, on (B, N, C)."""
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
        """Logits (B, N, vocabulary) of the head that MAGE and ADDP share; its output layer are the word embeddings."""
        hidden = self.layer_norm(f'{name}.ln', F.gelu(self.linear(f'{name}.fc', x)), eps=1e-5)
        return hidden @ embeddings.t() + self[f'{name}.bias'].flatten()
