# Copyright (c) addp_mm contributors. Apache-2.0.
"""Positions of a checkpoint, made to fit a backbone of another size."""
import math

import torch
from torch import Tensor

from addp_mm.models.layers import CLASS_ENTRIES, num_offsets, resize_pos_embed, resize_rel_pos_table


def fit_pos_embed(pos_embed: Tensor, has_cls_token: bool, grid_size: tuple[int, int], with_cls_token: bool,
                  antialias: bool = False) -> Tensor:
    """Resize absolute positions to a grid; drop the class token's where there is none.

    Args:
        pos_embed (Tensor): (1, L, C) of the checkpoint.
        has_cls_token (bool): Whether the checkpoint has a class token.
        grid_size (tuple[int, int]): Height and width of the backbone's map in tokens.
        with_cls_token (bool): Whether the backbone has a class token.
        antialias (bool): As in :func:`~addp_mm.models.layers.resize_pos_embed`. Defaults to False.

    Returns:
        Tensor: (1, H * W, C), or (1, 1 + H * W, C) with a class token.

    Raises:
        ValueError: The size differs and the checkpoint's map is not square.
    """
    if has_cls_token and not with_cls_token:
        pos_embed = pos_embed[:, 1:]
    places = pos_embed.shape[1] - with_cls_token
    if places == math.prod(grid_size):
        return pos_embed
    side = math.isqrt(max(places, 0))
    if side == 0 or side * side != places:
        raise ValueError(f'pos_embed of the checkpoint has {places} places, which are no square map, and this '
                         f'backbone has {grid_size[0]} x {grid_size[1]}: load it into a backbone of its own img_size '
                         'and resize with addp_mm.models.layers.resize_pos_embed')
    return resize_pos_embed(pos_embed, (side, side), grid_size, int(with_cls_token), antialias)


def fit_rel_pos_table(table: Tensor, size: tuple[int, int], with_cls_token: bool) -> Tensor:
    """Resize a table of relative positions; add (as zeros) or drop the class token's entries.

    Args:
        table (Tensor): (rows, heads) of the checkpoint.
        size (tuple[int, int]): Height and width of the backbone's map or window in tokens.
        with_cls_token (bool): Whether the backbone's table has entries for a class token.

    Returns:
        Tensor: (rows, heads).

    Raises:
        ValueError: The size differs and the checkpoint's map is not square.
    """
    for entries in (CLASS_ENTRIES, 0):
        offsets = len(table) - entries
        side = (math.isqrt(max(offsets, 0)) + 1) // 2
        source = size if offsets == num_offsets(size) else (side, side)
        if side and offsets == num_offsets(source):
            break
    else:
        raise ValueError(f'the table of relative positions of the checkpoint has {len(table)} rows, which are no '
                         f'square map, and this backbone has {size[0]} x {size[1]}: load it into a backbone of its own '
                         'img_size and resize with addp_mm.models.layers.resize_rel_pos_table')
    table = resize_rel_pos_table(table, source, size)
    if with_cls_token and not entries:
        return torch.cat([table, table.new_zeros(CLASS_ENTRIES, table.shape[1])])
    return table if with_cls_token else table[:num_offsets(size)]
