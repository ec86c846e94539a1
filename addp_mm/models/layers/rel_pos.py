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


def rel_pos_terms(
    query: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, hw: tuple[int, int], factor: float = 1.0
) -> tuple[Tensor, Tensor]:
    """What decomposed relative positions add to the scaled scores, for each row and column of keys.

    Args:
        query: (B, heads, H * W, head_dims), not scaled.
        rel_pos_h: (2 * height - 1, head_dims); resized if H is another height.
        rel_pos_w: (2 * width - 1, head_dims); resized if W is another width.
        hw: Height H and width W of the map in tokens.
        factor: Multiplies the terms. Defaults to 1.

    Returns:
        Terms of the rows (B, heads, H * W, H) and of the columns (B, heads, H * W, W), in the
        query's dtype.
    """
    query_map = query.unflatten(2, hw)
    tables = [_gather(table, size) for table, size in zip((rel_pos_h, rel_pos_w), hw, strict=True)]
    if factor != 1:  # in float32 at least: the product must not be rounded once more
        tables = [factor * table.to(torch.promote_types(table.dtype, torch.float32)) for table in tables]
    rows = torch.einsum('bnhwc,hkc->bnhwk', query_map, tables[0].to(query.dtype))
    cols = torch.einsum('bnhwc,wkc->bnhwk', query_map, tables[1].to(query.dtype))
    return rows.flatten(2, 3).to(query.dtype), cols.flatten(2, 3).to(query.dtype)


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
    prefix = query.shape[2] - hw[0] * hw[1]
    rows, cols = rel_pos_terms(query[:, :, prefix:], rel_pos_h, rel_pos_w, hw)
    bias = sum_of_terms(rows, cols)
    return F.pad(bias, (prefix, 0, prefix, 0)) if prefix else bias


def sum_of_terms(rows: Tensor, cols: Tensor) -> Tensor:
    """Bias of the terms of :func:`rel_pos_terms`.

    Args:
        rows: (B, heads, queries, H).
        cols: (B, heads, queries, W).

    Returns:
        (B, heads, queries, H * W).
    """
    return (rows[..., :, None] + cols[..., None, :]).flatten(3)
