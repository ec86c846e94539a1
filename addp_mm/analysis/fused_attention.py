# Copyright (c) addp_mm contributors. Apache-2.0.
"""An attention that keeps for the backward pass what the fused kernels of a GPU keep, on any device.

On the CPU ``scaled_dot_product_attention`` falls back to plain products where there is a bias or
dropout, and keeps the scores of all pairs. On a GPU the memory-efficient kernel takes both and
keeps queries, keys, values, bias, the result, and the logarithm of each row's sum (arXiv
2112.05682, arXiv 2205.14135).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula, sdpa_backward_flop_count, sdpa_flop_count


@functools.cache
def _operators():
    """Forward and backward as operators of their own, so that a dispatch mode sees one call for each."""

    @torch.library.custom_op('addp_mm_analysis::attention', mutates_args=())
    def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        scores = q.float() @ k.float().transpose(-2, -1) * q.shape[-1] ** -0.5
        if bias is not None:
            scores = scores + bias
        return (scores.softmax(-1) @ v.float()).to(q.dtype), scores.logsumexp(-1)

    @torch.library.custom_op('addp_mm_analysis::attention_backward', mutates_args=())
    def attention_backward(
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        out: Tensor,
        row_sums: Tensor,
        with_bias: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scores = q.float() @ k.float().transpose(-2, -1) * q.shape[-1] ** -0.5
        if bias is not None:
            scores = scores + bias
        weights = (scores - row_sums[..., None]).exp()
        grad_weights = grad.float() @ v.float().transpose(-2, -1)
        grad_scores = weights * (grad_weights - (grad.float() * out.float()).sum(-1, keepdim=True))
        scale = q.shape[-1] ** -0.5
        return (
            (grad_scores @ k.float() * scale).to(q.dtype),
            (grad_scores.transpose(-2, -1) @ q.float() * scale).to(k.dtype),
            (weights.transpose(-2, -1) @ grad.float()).to(v.dtype),
            grad_scores.sum_to_size(bias.shape).to(bias.dtype) if with_bias else q.new_empty(0),
        )

    @attention.register_fake
    def _(q, k, v, bias):
        return q.new_empty(*q.shape[:-1], v.shape[-1]), q.new_empty(q.shape[:-1], dtype=torch.float32)

    @attention_backward.register_fake
    def _(grad, q, k, v, bias, out, row_sums, with_bias):
        return (
            torch.empty_like(q),
            torch.empty_like(k),
            torch.empty_like(v),
            torch.empty_like(bias) if with_bias else q.new_empty(0),
        )

    def remember(ctx, inputs, output):
        ctx.save_for_backward(*inputs, *output)

    def differentiate(ctx, grad, _):
        q, k, v, bias, out, row_sums = ctx.saved_tensors
        with_bias = bias is not None and ctx.needs_input_grad[3]
        *grads, grad_bias = torch.ops.addp_mm_analysis.attention_backward(grad, q, k, v, bias, out, row_sums, with_bias)
        return *grads, grad_bias if with_bias else None

    attention.register_autograd(differentiate, setup_context=remember)

    def shape4(shape):
        return (1,) * (4 - len(shape)) + tuple(shape)

    @register_flop_formula(torch.ops.addp_mm_analysis.attention)
    def _(q, k, v, *_, out_shape=None, **__) -> int:
        return sdpa_flop_count(*map(shape4, (q, k, v)))

    @register_flop_formula(torch.ops.addp_mm_analysis.attention_backward)
    def _(grad, q, k, v, *_, out_shape=None, **__) -> int:
        return sdpa_backward_flop_count(*map(shape4, (grad, q, k, v)))

    return torch.ops.addp_mm_analysis.attention


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``scaled_dot_product_attention`` as far as ViTs use it; dropout is left out: the kernels keep none of it.

    Raises:
        NotImplementedError: For a causal mask, a scale of one's own or grouped queries.
    """
    if is_causal or scale is not None or enable_gqa:
        raise NotImplementedError('the dry run knows no is_causal, scale or enable_gqa of scaled_dot_product_attention')
    if torch.is_autocast_enabled('cpu'):
        dtype = torch.get_autocast_dtype('cpu')
        query, key, value = (x.to(dtype) for x in (query, key, value))
        attn_mask = attn_mask.to(dtype) if attn_mask is not None and attn_mask.is_floating_point() else attn_mask
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, float('-inf'))
    return _operators()(query, key, value, attn_mask)[0]


@contextmanager
def fused_attention_everywhere() -> Iterator[None]:
    """Let :func:`attend` answer for ``torch.nn.functional.scaled_dot_product_attention``."""
    _operators()
    original = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = attend
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original
