# Copyright (c) addp_mm contributors. Apache-2.0.
"""The attention of a call as a part of its own, in the forward and in the backward pass."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from addp_mm.benchmark.spans import Spans

ATTENTION = 'attention'


class _First(Function):
    """Passes query, key and value on. Its backward pass runs when that of attention has ended."""

    @staticmethod
    def forward(ctx: Any, spans: Spans, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.spans = spans
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ctx.spans.leave()
        return None, *grads


class _Last(Function):
    """Passes the result on. Its backward pass runs just before that of attention."""

    @staticmethod
    def forward(ctx: Any, spans: Spans, out: Tensor) -> Tensor:
        ctx.spans = spans
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        ctx.spans.enter(ATTENTION)
        return None, grad


def wrap_attention(spans: Spans) -> None:
    """Let every ``scaled_dot_product_attention`` count as a part, with its backward pass.

    Its linear layers are not part of it: their cost grows with the tokens, and that of attention
    with their square.

    Args:
        spans: Measures the parts.
    """
    original = F.scaled_dot_product_attention

    def attend(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not (query.requires_grad and key.requires_grad and value.requires_grad):
            return original(query, key, value, *args, **kwargs)
        query, key, value = _First.apply(spans, query, key, value)
        return _Last.apply(spans, original(query, key, value, *args, **kwargs))

    spans.replace(F, 'scaled_dot_product_attention', attend)
    spans.wrap(F, 'scaled_dot_product_attention', ATTENTION)
