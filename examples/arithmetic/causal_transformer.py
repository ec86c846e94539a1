# Copyright (c) addp_mm contributors. Apache-2.0.
"""A small causal transformer in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Keys and values of the tokens so far, (B, heads, length, channels) each, for each block.
Cache = list[tuple[Tensor, Tensor] | None]


class Block(nn.Module):
    """Causal self-attention and an MLP, each with a LayerNorm before it and a shortcut.

    Args:
        embed_dims: Channels.
        num_heads: Heads of the attention.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(embed_dims), nn.LayerNorm(embed_dims)
        self.qkv, self.proj = nn.Linear(embed_dims, 3 * embed_dims), nn.Linear(embed_dims, embed_dims)
        self.mlp = nn.Sequential(
            nn.Linear(embed_dims, 4 * embed_dims), nn.GELU(), nn.Linear(4 * embed_dims, embed_dims)
        )

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Forward pass.

        Args:
            x: (B, T, C): the tokens after those of ``past``. With a past, T must be 1.
            past: Keys and values of the tokens before, or None.

        Returns:
            (B, T, C), and the keys and values of all tokens so far.
        """
        batch, length, channels = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=past is None)
        x = x + self.proj(attended.transpose(1, 2).reshape(batch, length, channels))
        return x + self.mlp(self.norm2(x)), (key, value)


class CausalTransformer(nn.Module):
    """Predicts the next token from the tokens before it.

    Args:
        num_symbols: Size of the vocabulary, K. The number K stands for padding: it is never
            predicted.
        max_length: Largest number of tokens.
        embed_dims: Channels. Defaults to 64.
        depth: Number of blocks. Defaults to 3.
        num_heads: Heads of the attention. Defaults to 4.
    """

    def __init__(
        self, num_symbols: int, max_length: int, embed_dims: int = 64, depth: int = 3, num_heads: int = 4
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_symbols + 1, embed_dims)
        self.positions = nn.Parameter(torch.empty(max_length, embed_dims))
        for weight in (self.embedding.weight, self.positions):
            nn.init.normal_(weight, std=0.02)
        self.blocks = nn.ModuleList(Block(embed_dims, num_heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(embed_dims), nn.Linear(embed_dims, num_symbols)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of the token after each token, (B, T) to (B, T, K)."""
        return self.step(ids, [None] * len(self.blocks))[0]

    def step(self, ids: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Logits of the tokens after some more tokens.

        Args:
            ids: int64 (B, T): the tokens after those of ``cache``. With a cache, T must be 1.
            cache: From the step before, or None for each block.

        Returns:
            (B, T, K), and the cache of all tokens so far.
        """
        start = 0 if cache[0] is None else cache[0][0].shape[2]
        x = self.embedding(ids) + self.positions[start : start + ids.shape[1]]
        longer: Cache = []
        for block, past in zip(self.blocks, cache, strict=True):
            x, now = block(x, past)
            longer.append(now)
        return self.head(self.norm(x)), longer
