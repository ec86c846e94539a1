# Copyright (c) addp_mm contributors. Apache-2.0.
"""Relative positions as one number for each head and offset.

Swin (arXiv 2103.14030) and BEiT (arXiv 2106.08254) use them.
A table has one row for each offset (query minus key) from (-(H - 1), -(W - 1)) to (H - 1, W - 1),
row-major. With a class token, BEiT's three class entries follow: class to patch, patch to class,
class to class.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

CLASS_ENTRIES = 3


def num_offsets(hw: tuple[int, int]) -> int:
    """Number of rows for a map of height and width ``hw``, without class entries."""
    return (2 * hw[0] - 1) * (2 * hw[1] - 1)


def resize_rel_pos_table(table: Tensor, src_hw: tuple[int, int], dst_hw: tuple[int, int]) -> Tensor:
    """Resize a table for a map of another size.

    Small offsets keep their values. If the map shrinks, offsets that no longer occur are removed.
    If it grows, the known offsets are spread in a geometric series up to the largest one, as BEiT
    does. BEiT's code interpolates cubically, this function linearly.

    Args:
        table: (offsets, heads) or (offsets + 3, heads) of a map of ``src_hw``. Class entries stay.
        src_hw: Height and width of the table's map, in tokens.
        dst_hw: Height and width of the map to resize to, in tokens.

    Returns:
        (offsets or offsets + 3, heads), in the table's dtype.

    Raises:
        ValueError: The number of rows does not fit a map of ``src_hw``.
    """
    split = num_offsets(src_hw)
    if len(table) not in (split, split + CLASS_ENTRIES):
        raise ValueError(
            f'the table of relative positions has {len(table)} rows; a map of {src_hw[0]} x {src_hw[1]} '
            f'needs {split}, or {split + CLASS_ENTRIES} with a class token'
        )
    if tuple(src_hw) == tuple(dst_hw):
        return table
    offsets = table[:split].float().unflatten(0, (2 * src_hw[0] - 1, 2 * src_hw[1] - 1))
    rows, cols = (torch.from_numpy(_resampling(*sides)).to(table.device) for sides in zip(src_hw, dst_hw, strict=True))
    resized = torch.einsum('ab,bdn,cd->acn', rows, offsets, cols).flatten(0, 1).to(table.dtype)
    return torch.cat([resized, table[split:]])


@lru_cache(maxsize=64)
def _resampling(src: int, dst: int) -> np.ndarray:
    """Matrix (2 * dst - 1, 2 * src - 1) from the values at old offsets to those at new ones.

    It is an array, because a cached tensor would keep the inference mode and the device of the
    first call.
    """
    steps = np.cumsum(_geometric_ratio(src - 1, dst - 1) ** np.arange(src - 1))
    known = np.concatenate([-steps[::-1], [0.0], steps])
    wanted = np.arange(1 - dst, dst)
    return np.stack([np.interp(wanted, known, one) for one in np.eye(len(known))], axis=1).astype(np.float32)


def _geometric_ratio(terms: int, total: int) -> float:
    """The q with 1 + q + … + q ** (terms - 1) = total, at least 1, by bisection."""
    low, high = 1.0, 1.0
    if terms < 2 or total <= terms:
        return 1.0
    while sum(high**i for i in range(terms)) < total:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(middle**i for i in range(terms)) < total else (low, middle)
    return (low + high) / 2


def rel_pos_table_bias(table: Tensor, src_hw: tuple[int, int], hw: tuple[int, int]) -> Tensor:
    """Bias of a table, to be added to the scaled attention scores.

    Args:
        table: (offsets + 3, heads) if the first token is a class token, else (offsets, heads).
        src_hw: Height and width of the table's map, in tokens.
        hw: Height H and width W of the map to attend on; the table is resized if they differ.

    Returns:
        (1, heads, P + H * W, P + H * W); P is 1 with class entries and 0 without.
    """
    table = resize_rel_pos_table(table, src_hw, hw)
    h, w = hw
    offsets, entries = table.t().split([num_offsets(hw), len(table) - num_offsets(hw)], dim=1)
    y, x = (torch.arange(side, device=table.device) for side in hw)
    rows = (y[:, None] - y[None, :] + h - 1)[:, None, :, None]
    cols = (x[:, None] - x[None, :] + w - 1)[None, :, None, :]
    bias = offsets.unflatten(1, (2 * h - 1, 2 * w - 1))[:, rows, cols].reshape(len(offsets), h * w, h * w)
    if entries.shape[1]:
        to_patch, from_patch, class_to_class = entries.reshape(-1, CLASS_ENTRIES, 1, 1).unbind(1)
        bias = torch.cat([from_patch.expand(-1, h * w, 1), bias], dim=2)
        bias = torch.cat([torch.cat([class_to_class, to_patch.expand(-1, 1, h * w)], dim=2), bias], dim=1)
    return bias[None]
