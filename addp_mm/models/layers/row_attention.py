# Copyright (c) addp_mm contributors. Apache-2.0.
"""Attention with a bias that is built for some queries at a time and never as a whole."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from addp_mm.models.layers.rel_pos import sum_of_terms

# Size of the scores that exist at a time: they stay in the cache of a CPU, and occupy a GPU.
CHUNK_BYTES = dict(cpu=2**24)
CHUNK_BYTES_OF_OTHERS = 2**28


class RowAttention(torch.autograd.Function):
    """Attention of the patches of a map, with decomposed relative positions.

    The forward pass runs PyTorch's fused kernel with some rows of the bias after the other. The
    backward pass computes scores and weights of the same queries again, in float32 at least.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        """Attend.

        Args:
            ctx: Keeps what the backward pass needs.
            query: (B, heads, H * W, head_dims), not scaled.
            key: (B, heads, P + H * W, head_dims). The first P tokens have no bias.
            value: (B, heads, P + H * W, head_dims).
            rows: (B, heads, H * W, H), added to the scaled scores of the keys in a row.
            cols: (B, heads, H * W, W), the same of a column.

        Returns:
            (B, heads, H * W, head_dims).
        """
        out = torch.cat(
            [
                F.scaled_dot_product_attention(query[:, :, part], key, value, attn_mask=_bias(key, rows, cols, part))
                for part in _chunks(query, key, cols.shape[-1])
            ],
            dim=2,
        )
        ctx.save_for_backward(query, key, value, rows, cols)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the arguments.

        Args:
            ctx: What the forward pass kept.
            grad_out: (B, heads, H * W, head_dims).
        """
        query, key, value, rows, cols = ctx.saved_tensors
        dtype = torch.promote_types(query.dtype, torch.float32)
        scale = query.shape[-1] ** -0.5
        wide_key, wide_value = key.to(dtype), value.to(dtype)
        grad_key, grad_value = torch.zeros_like(wide_key), torch.zeros_like(wide_value)
        by_query = []
        # a backward pass under autocast must not round the products
        with torch.autocast(query.device.type, enabled=False):
            for part in _chunks(query, key, cols.shape[-1]):
                q, g = (x[:, :, part].to(dtype) for x in (query, grad_out))
                weights = ((scale * q) @ wide_key.mT).add_(_bias(key, rows, cols, part)).softmax(dim=-1)
                grad_value += weights.mT @ g
                grad_weights = g @ wide_value.mT
                mean = (grad_weights * weights).sum(dim=-1, keepdim=True)
                grad_scores = grad_weights.sub_(mean).mul_(weights)
                grad_key += grad_scores.mT @ (scale * q)
                of_map = grad_scores[..., key.shape[2] - query.shape[2] :].unflatten(3, (-1, cols.shape[-1]))
                by_query.append((scale * (grad_scores @ wide_key), of_map.sum(dim=4), of_map.sum(dim=3)))
        grad_query, grad_rows, grad_cols = (torch.cat(parts, dim=2) for parts in zip(*by_query, strict=True))
        grads = (grad_query, grad_key, grad_value, grad_rows, grad_cols)
        return tuple(grad.to(x.dtype) for grad, x in zip(grads, (query, key, value, rows, cols), strict=True))


def _chunks(query: Tensor, key: Tensor, width: int) -> Iterator[slice]:
    """Queries of some whole rows of the map at a time."""
    wide = torch.promote_types(query.dtype, torch.float32).itemsize
    row_bytes = query.shape[0] * query.shape[1] * width * key.shape[2] * wide
    step = width * max(1, CHUNK_BYTES.get(query.device.type, CHUNK_BYTES_OF_OTHERS) // row_bytes)
    return (slice(start, start + step) for start in range(0, query.shape[2], step))


def _bias(key: Tensor, rows: Tensor, cols: Tensor, part: slice) -> Tensor:
    """Bias of some queries, (B, heads, queries, P + H * W)."""
    bias = sum_of_terms(rows[:, :, part], cols[:, :, part])
    prefix = key.shape[2] - bias.shape[3]
    return F.pad(bias, (prefix, 0)) if prefix else bias
