# Copyright (c) addp_mm contributors. Apache-2.0.
"""Dropout whose random numbers are drawn fast on the CPU.

PyTorch's ``bernoulli_`` draws one number after the other on one core of a CPU. Random bits, two
numbers of 32 bits at a time, take a third of the time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BITS = 32


class Dropout(nn.Dropout):
    """``nn.Dropout`` with the same distribution, and other draws on the CPU for the same seed."""

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor of any shape to one of the same shape."""
        if self.inplace:
            return super().forward(x)
        return dropout(x, self.p, self.training)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Set each number to zero with probability ``p``, and divide the others by ``1 - p``.

    Compiled code draws as PyTorch does.

    Args:
        x: Any shape.
        p: From 0 to 1; exact to 2 ** -32 on the CPU.
        training: Whether to do it; otherwise ``x`` is returned.
    """
    if not training or not 0 < p < 1 or x.device.type != 'cpu' or torch.compiler.is_compiling():
        return F.dropout(x, p, training)
    return x * _factors(x, p)


def attend_with_dropout(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, p: float) -> Tensor:
    """Attention in training with dropout of its weights.

    On the CPU PyTorch has no fused kernel for it. Scores and weights are float32 there, as in
    PyTorch's own computation.

    Args:
        query: (B, heads, N, head_dims), not scaled.
        key: (B, heads, N, head_dims).
        value: (B, heads, N, head_dims).
        bias: Added to the scaled scores, if any; broadcast to (B, heads, N, N).
        p: Probability of the dropout.

    Returns:
        (B, heads, N, head_dims).
    """
    if query.device.type != 'cpu' or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=p)
    wide = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast('cpu', enabled=False):
        scores = (query.to(wide) * query.shape[-1] ** -0.5) @ key.to(wide).mT
        weights = (scores if bias is None else scores + bias).softmax(dim=-1)
        return (dropout(weights, p, training=True) @ value.to(wide)).to(query.dtype)


def _factors(x: Tensor, p: float) -> Tensor:
    """0 with probability ``p``, else 1 / (1 - p), in the shape and type of ``x``."""
    count = x.numel()
    bits = torch.empty((count + 1) // 2, dtype=torch.int64, device=x.device).random_(-(2**63), None).view(torch.int32)
    lowest_kept = min(round(p * 2**_BITS), 2**_BITS - 1) - 2 ** (_BITS - 1)
    return (bits[:count].view(x.shape) >= lowest_kept).to(x.dtype).mul_(1 / (1 - p))
