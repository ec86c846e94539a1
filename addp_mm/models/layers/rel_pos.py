# Copyright (c) addp_mm contributors. Apache-2.0.
"""Decomposed relative positions (MViTv2, arXiv 2112.01526; used by ViTDet, arXiv 2203.16527)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_rel_pos(table: Tensor, length: int) -> Tensor:
    """Resize a table of relative positions linearly along its distances.

    Args:
        table: (2 * old - 1, head_dims): one row for each distance, from -(old - 1) to old - 1.
        length: New number of rows, 2 * new - 1.

    Returns:
        (length, head_dims), in the table's dtype.
    """
    if table.shape[0] == length:
        return table
    resized = F.interpolate(table.float().t()[None], size=length, mode='linear', align_corners=False)
    return resized[0].t().to(table.dtype)


def _gather(table: Tensor, size: int) -> Tensor:
    """(any, head_dims) -> (size, size, head_dims): the rows for query minus key position."""
    table = resize_rel_pos(table, 2 * size - 1)
    positions = torch.arange(size, device=table.device)
    return table[positions[:, None] - positions[None, :] + size - 1]


def rel_pos_bias(query: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, hw: tuple[int, int]) -> Tensor:
    """Bias of decomposed relative positions, to be added to the scaled attention scores.

    Args:
        query: (B, heads, P + H * W, head_dims), not scaled. The first P tokens (a class token) have
            no position on the map: their rows and columns are zero.
        rel_pos_h: (2 * height - 1, head_dims); resized if H is another height.
        rel_pos_w: (2 * width - 1, head_dims); resized if W is another width.
        hw: Height H and width W of the map in tokens.

    Returns:
        (B, heads, P + H * W, P + H * W), in the query's dtype.
    """
    h, w = hw
    prefix = query.shape[2] - h * w
    query_map = query[:, :, prefix:].unflatten(2, (h, w))
    rows = torch.einsum('bnhwc,hkc->bnhwk', query_map, _gather(rel_pos_h, h).to(query.dtype))
    cols = torch.einsum('bnhwc,wkc->bnhwk', query_map, _gather(rel_pos_w, w).to(query.dtype))
    bias = (rows[..., :, None] + cols[..., None, :]).flatten(4, 5).flatten(2, 3)
    return F.pad(bias, (prefix, 0, prefix, 0)).to(query.dtype)
