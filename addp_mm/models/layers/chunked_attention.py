# Copyright (c) addp_mm contributors. Apache-2.0.
"""Attention with a bias that is added for some queries at a time and never exists as a whole."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Size of the scores that exist at a time: they stay in the cache of a CPU, and occupy a GPU.
CHUNK_BYTES = dict(cpu=2**22)
CHUNK_BYTES_OF_OTHERS = 2**28
# A product of two matrices is faster on a CPU than one of two batches of matrices, unless the
# scores of a head are smaller than this: in windows.
HEAD_BY_HEAD = ('cpu',)
SMALL_BYTES = 2**20
Chunk = tuple[int | slice, int | slice, slice]


class ChunkedAttention(torch.autograd.Function):
    """Attention of the patches of a map, with decomposed relative positions.

    Scores and weights are computed for some queries after the other, in float32 at least, and
    again in the backward pass. On a CPU they are those of one head, as products of two matrices, or
    those of all heads of a window.
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
        ctx.save_for_backward(query, key, value, rows, cols)
        out = torch.empty_like(query)
        with _without_autocast(query):
            wide_key, wide_value = _wide(key).contiguous(), _wide(value).contiguous()
            for chunk in _chunks(query, key):
                weights = _weights(_scaled(_wide(query[chunk])), wide_key[chunk[:2]], rows[chunk], cols[chunk])
                out[chunk] = weights @ wide_value[chunk[:2]]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the arguments.

        Args:
            ctx: What the forward pass kept.
            grad_out: (B, heads, H * W, head_dims).
        """
        inputs = ctx.saved_tensors
        rows, cols = inputs[3:]
        query, key, value = (_wide(x).contiguous() for x in inputs[:3])
        grads = [torch.zeros_like(x, dtype=query.dtype) for x in inputs]
        grad_query, grad_key, grad_value, grad_rows, grad_cols = grads
        # a backward pass under autocast must not round the products
        with _without_autocast(query):
            for chunk in _chunks(query, key):
                head, slope, scaled = chunk[:2], _wide(grad_out[chunk]), _scaled(query[chunk])
                weights = _weights(scaled, key[head], rows[chunk], cols[chunk])
                grad_value[head] += weights.mT @ slope
                grad_weights = slope @ value[head].mT
                mean = (grad_weights * weights).sum(dim=-1, keepdim=True)
                grad_scores = grad_weights.sub_(mean).mul_(weights)
                grad_key[head] += grad_scores.mT @ scaled
                grad_query[chunk] = _scaled(grad_scores @ key[head])
                of_map = _of_map(grad_scores, rows, cols)
                grad_rows[chunk], grad_cols[chunk] = of_map.sum(dim=-1), of_map.sum(dim=-2)
        return tuple(grad.to(x.dtype) for grad, x in zip(grads, inputs, strict=True))


def _without_autocast(x: Tensor) -> AbstractContextManager:
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _scaled(x: Tensor) -> Tensor:
    """A query, or the gradient of one, times the scale of the scores."""
    return x * x.shape[-1] ** -0.5


def _weights(scaled: Tensor, key: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Weights (…, queries, P + H * W) of some queries."""
    scores = scaled @ key.mT
    _of_map(scores, rows, cols).add_(rows[..., None]).add_(cols[..., None, :])
    return scores.softmax(dim=-1)


def _of_map(scores: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """A view (…, queries, H, W) of the scores that have a bias: all but those of the first keys."""
    height, width = rows.shape[-1], cols.shape[-1]
    return scores[..., scores.shape[-1] - height * width :].unflatten(-1, (height, width))


def _chunks(query: Tensor, key: Tensor) -> Iterator[Chunk]:
    """Indices of some queries: on a CPU of a head, or of all heads of a small map; else of all."""
    images, heads, queries, _ = query.shape
    query_bytes = key.shape[2] * torch.promote_types(query.dtype, torch.float32).itemsize
    groups: Iterable[tuple[int | slice, int | slice]] = [(slice(None), slice(None))]
    together = images * heads
    if query.device.type in HEAD_BY_HEAD:
        is_small = queries * query_bytes < SMALL_BYTES
        groups = product(range(images), [slice(None)] if is_small else range(heads))
        together = heads if is_small else 1
    step = max(1, CHUNK_BYTES.get(query.device.type, CHUNK_BYTES_OF_OTHERS) // max(1, query_bytes * together))
    return ((*group, slice(start, start + step)) for group in groups for start in range(0, queries, step))
