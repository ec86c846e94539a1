# Copyright (c) addp_mm contributors. Apache-2.0.
"""Weighted sums of a few rows of a matrix: what every operator does that samples a feature map.

The rows are the pixels of a map, so that all channels of a pixel are read at once.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_PENDING_ENTRIES = 1 << 22  # so many are sorted at once


def pixel_rows(images: Tensor, groups: int = 1) -> Tensor:
    """Turn a batch into rows: (N, C, H, W) -> (N * H * W * groups, C / groups).

    Args:
        images: (N, C, H, W).
        groups: Groups of channels, each with rows of its own. Defaults to 1.
    """
    return images.permute(0, 2, 3, 1).reshape(-1, images.size(1) // groups)


def images_of(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """View the rows of :func:`pixel_rows` as a batch (N, C, H, W) again."""
    batch, channels, height, width = shape
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def weighted_sums(rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Sum rows with weights.

    Args:
        rows: (R, C).
        index: (S, K) int32 or int64, rows of each sum.
        weight: (S, K).

    Returns:
        (S, C).
    """
    return F.embedding_bag(index, rows, per_sample_weights=weight, mode='sum')


def gradient_of_weights(grad: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """Gradient of :func:`weighted_sums` for ``weight``: (S, C), (R, C), (S, K) -> (S, K)."""
    weight = torch.zeros(index.shape, dtype=rows.dtype, device=rows.device, requires_grad=True)
    with torch.enable_grad():
        sums = weighted_sums(rows, index, weight)
    return torch.autograd.grad(sums, weight, grad)[0]


def gradient_of_rows(grad: Tensor, index: Tensor, weight: Tensor, count: int) -> Tensor:
    """Gradient of :func:`weighted_sums` for ``rows``: (S, C), (S, K), (S, K) -> (count, C)."""
    sums = torch.arange(len(index), device=index.device)[:, None].expand_as(index)
    return gradient_of_entries(grad, sums.flatten(), index.flatten(), weight.flatten(), count)


def gradient_of_entries(grad: Tensor, sums: Tensor, index: Tensor, weight: Tensor, count: int) -> Tensor:
    """Gradient for the rows of sums that have any number of entries.

    Each row gathers what used it, so that nothing is added atomically.

    Args:
        grad: (S, C) gradients of the sums.
        sums: (E,) int64, the sum of each entry.
        index: (E,) int32 or int64, its row.
        weight: (E,), its weight.
        count: Number of rows.

    Returns:
        (count, C).
    """
    users, order = index.sort(stable=True)
    starts = torch.searchsorted(users, torch.arange(count, dtype=users.dtype, device=users.device))
    # faster than the gradient of embedding_bag, which also sorts
    return F.embedding_bag(sums[order], grad, starts, per_sample_weights=weight[order], mode='sum')


class RowGradient:
    """Gradient of :func:`weighted_sums` for the rows, when the sums are computed in parts.

    Entries are collected over the parts, because each addition visits all rows.

    Args:
        grad: (S, C) gradients of all sums, in the dtype of the computation.
        count: Number of rows.
    """

    def __init__(self, grad: Tensor, count: int):
        self._grad, self._total = grad, grad.new_zeros(count, grad.size(1))
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, sums: Tensor, index: Tensor, weight: Tensor) -> None:
        """Add some of the sums.

        Args:
            sums: (s,) int64, which ones.
            index: (s, K) int32 or int64, rows of each sum.
            weight: (s, K).
        """
        self._pending.append((sums[:, None].expand_as(index).flatten(), index.flatten(), weight.flatten()))
        if sum(len(entries) for entries, _, _ in self._pending) > _PENDING_ENTRIES:
            self._flush()

    def total(self) -> Tensor:
        """The gradient of the rows: (count, C)."""
        self._flush()
        return self._total

    def _flush(self) -> None:
        if self._pending:
            sums, index, weight = (torch.cat(parts) for parts in zip(*self._pending, strict=True))
            self._pending.clear()
            self._total += gradient_of_entries(self._grad, sums, index, weight, len(self._total))


def zero_padded_corners(y: Tensor, x: Tensor, height: int | Tensor, width: int | Tensor) -> tuple[Tensor, Tensor]:
    """Find the four pixels around each point of a map with zeros around it.

    The weights have gradients for ``y`` and ``x``. As in mmcv, a point that is a whole pixel
    outside has none.

    Args:
        y: Rows in pixels, any shape, finite.
        x: Columns in pixels, the same shape.
        height: Rows of the map.
        width: Columns of the map.

    Returns:
        (..., 4) int32 index into the flattened map, and (..., 4) weights, 0 for pixels outside.
    """
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    top, left = y.detach().floor(), x.detach().floor()
    below, right = y - top, x - left
    top, left = top.int(), left.int()
    index, weight = [], []
    for row, vertical in ((top, 1 - below), (top + 1, below)):
        row_exists = inside & (row >= 0) & (row < height)
        for column, horizontal in ((left, 1 - right), (left + 1, right)):
            exists = row_exists & (column >= 0) & (column < width)
            index.append(torch.where(exists, row * width + column, 0).int())
            weight.append(vertical * horizontal * exists)
    return torch.stack(index, dim=-1), torch.stack(weight, dim=-1)
