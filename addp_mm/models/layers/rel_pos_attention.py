# Copyright (c) addp_mm contributors. Apache-2.0.
"""Attention with decomposed relative positions, with or without the N x N bias.

Three ways give the same result up to rounding:

- :func:`attend_plain` builds the bias. It is the reference, and serves attention dropout.
- :func:`attend_appended` carries the bias in the dot product, so that PyTorch's fused kernels run
  without a mask.
- :func:`attend_in_chunks` adds the bias for some queries at a time.

:func:`attend` takes one of them by shape; :func:`choose_path` is the rule.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from addp_mm.models.layers.chunked_attention import ChunkedAttention
from addp_mm.models.layers.dropout import attend_with_dropout
from addp_mm.models.layers.rel_pos import rel_pos_bias, rel_pos_terms

# the fused kernels of GPUs need multiples of it, and accept no wider heads
HEAD_DIMS_STEP = 8
MAX_HEAD_DIMS = 256


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rel_pos_h: Tensor,
    rel_pos_w: Tensor,
    hw: tuple[int, int],
    dropout_p: float = 0.0,
) -> Tensor:
    """Attend in the way that suits the shape.

    Args:
        query: (B, heads, N, head_dims), not scaled. The first P tokens have no position on the map.
        key: (B, heads, N, head_dims).
        value: (B, heads, N, head_dims).
        rel_pos_h: (2 * height - 1, head_dims); resized if H is another height.
        rel_pos_w: (2 * width - 1, head_dims); resized if W is another width.
        hw: Height H and width W of the map in tokens.
        dropout_p: Dropout of the attention weights. Defaults to 0.

    Returns:
        (B, heads, N, head_dims).
    """
    if dropout_p:  # the CPU has no fused kernel with dropout
        return attend_plain(query, key, value, rel_pos_h, rel_pos_w, hw, dropout_p)
    path = choose_path(query.shape[-1], hw, query.device.type)
    return path(query, key, value, rel_pos_h, rel_pos_w, hw)


def attend_plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rel_pos_h: Tensor,
    rel_pos_w: Tensor,
    hw: tuple[int, int],
    dropout_p: float = 0.0,
) -> Tensor:
    """Attend with the whole bias: memory grows with N * N, where N = P + H * W.

    Args:
        query: See :func:`attend`.
        key: See :func:`attend`.
        value: See :func:`attend`.
        rel_pos_h: See :func:`attend`.
        rel_pos_w: See :func:`attend`.
        hw: See :func:`attend`.
        dropout_p: See :func:`attend`. Defaults to 0.

    Returns:
        (B, heads, N, head_dims).
    """
    bias = rel_pos_bias(query, rel_pos_h, rel_pos_w, hw)
    if dropout_p:
        return attend_with_dropout(query, key, value, bias, dropout_p)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def attend_appended(
    query: Tensor, key: Tensor, value: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, hw: tuple[int, int]
) -> Tensor:
    """Attend with the bias inside the dot product: memory grows with N * (head_dims + H + W).

    A query gets its row and column terms as additional channels, a key the one-hot codes of its row
    and column. The kernels want values of the same width, so these get zeros.

    Args:
        query: See :func:`attend`.
        key: See :func:`attend`.
        value: See :func:`attend`.
        rel_pos_h: See :func:`attend`.
        rel_pos_w: See :func:`attend`.
        hw: See :func:`attend`.

    Returns:
        (B, heads, N, head_dims).
    """
    dims, (h, w) = query.shape[-1], hw
    prefix = query.shape[2] - h * w
    added = _added_dims(dims, hw)
    # the kernel scales the whole dot product, and the terms are not to be scaled
    terms: tuple[Tensor, ...] = rel_pos_terms(query[:, :, prefix:], rel_pos_h, rel_pos_w, hw, factor=dims**0.5)
    if prefix:
        terms = tuple(F.pad(one, (0, 0, prefix, 0)) for one in terms)
    zeros = query.new_zeros(*query.shape[:3], added - h - w)
    codes = F.pad(_codes(hw, key), (0, added - h - w, prefix, 0)).expand(*key.shape[:2], -1, -1)
    out = F.scaled_dot_product_attention(
        torch.cat([query, *terms, zeros], dim=-1),
        torch.cat([key, codes], dim=-1),
        F.pad(value, (0, added)),
        scale=dims**-0.5,
    )
    return out[..., :dims]


def attend_in_chunks(
    query: Tensor, key: Tensor, value: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, hw: tuple[int, int]
) -> Tensor:
    """Attend for some queries at a time: memory grows with N * (head_dims + H + W).

    The backward pass computes the scores again.

    Args:
        query: See :func:`attend`.
        key: See :func:`attend`.
        value: See :func:`attend`.
        rel_pos_h: See :func:`attend`.
        rel_pos_w: See :func:`attend`.
        hw: See :func:`attend`.

    Returns:
        (B, heads, N, head_dims).
    """
    prefix = query.shape[2] - hw[0] * hw[1]
    patches = query[:, :, prefix:]
    out = ChunkedAttention.apply(patches, key, value, *rel_pos_terms(patches, rel_pos_h, rel_pos_w, hw))
    if not prefix:
        return out
    return torch.cat([F.scaled_dot_product_attention(query[:, :, :prefix], key, value), out], dim=2)


def choose_path(head_dims: int, hw: tuple[int, int], device_type: str) -> Callable[..., Tensor]:
    """The rule: :func:`attend_appended` or :func:`attend_in_chunks`.

    The first on CUDA, which computes fast in comparison with its memory, as long as its fused
    kernels accept the wider heads; whether other accelerators have such kernels was not tried.
    Else the second: on a CPU it is as fast as the whole bias in windows and faster on large maps.
    ``tools/benchmarks/relative_positions.py`` measures all.

    Args:
        head_dims: Channels of a head.
        hw: Height and width of the map in tokens.
        device_type: 'cpu', 'cuda', ….
    """
    fits = head_dims + _added_dims(head_dims, hw) <= MAX_HEAD_DIMS
    return attend_appended if device_type == 'cuda' and fits else attend_in_chunks


def _added_dims(head_dims: int, hw: tuple[int, int]) -> int:
    """Channels that :func:`attend_appended` adds to a head."""
    return sum(hw) + -(head_dims + sum(hw)) % HEAD_DIMS_STEP


def _codes(hw: tuple[int, int], like: Tensor) -> Tensor:
    """(H * W, H + W): the one-hot code of a position's row, then that of its column."""
    rows, cols = (torch.eye(side, dtype=like.dtype, device=like.device) for side in hw)
    return torch.cat([rows.repeat_interleave(hw[1], dim=0), cols.repeat(hw[0], 1)], dim=1)
