# Copyright (c) addp_mm contributors. Apache-2.0.
"""Masked and visible positions, of which each training step has another number.

Tensors with one entry for each such position get another size in each step. The functions mark this
size for ``torch.compile``, which then compiles once for all sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.compiler.disable
def masked_rows(mask: Tensor) -> Tensor:
    """Index of the masked positions in a batch whose first two dimensions are flattened.

    Args:
        mask: (B, L), bool, True where masked.

    Returns:
        (M,), int64, ascending.

    Example:
        >>> masked_rows(torch.tensor([[True, False], [True, True]]))
        tensor([0, 2, 3])
    """
    return _mark_size(mask.flatten().nonzero().squeeze(1), 0)


@torch.compiler.disable
def visible_positions(mask: Tensor, num_visible: int) -> Tensor:
    """Positions that are not masked.

    Args:
        mask: (B, L), bool, True where masked.
        num_visible: Number V of visible positions of each row.

    Returns:
        (B, V), int64, ascending in each row.
    """
    return _mark_size(mask.byte().argsort(dim=1, stable=True)[:, :num_visible].contiguous(), 1)


def _mark_size(index: Tensor, dim: int) -> Tensor:
    torch._dynamo.maybe_mark_dynamic(index, dim)  # noqa: SLF001  # torch.compiler has no such function
    return index
