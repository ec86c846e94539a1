# Copyright (c) addp_mm contributors. Apache-2.0.
"""Learned positions at other sizes."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_pos_embed(
    pos_embed: Tensor,
    src_hw: tuple[int, int],
    dst_hw: tuple[int, int],
    num_prefix_tokens: int = 1,
    antialias: bool = False,
) -> Tensor:
    """Resize a table of positions bicubically, height and width apart.

    Args:
        pos_embed (Tensor): (1, P + H * W, C), row-major, the P positions of extra tokens first.
        src_hw (tuple[int, int]): Height and width that the table was made for, in tokens.
        dst_hw (tuple[int, int]): Height and width asked for.
        num_prefix_tokens (int): P, kept as they are. Defaults to 1, the class token.
        antialias (bool): Whether the cubic is timm's, with antialiasing where the table shrinks;
            the default is that of MAE's and ADDP's code. Defaults to False.

    Returns:
        Tensor: (1, P + H' * W', C), in the table's dtype.

    Raises:
        ValueError: The table does not have P + H * W positions.
    """
    expected = num_prefix_tokens + src_hw[0] * src_hw[1]
    if pos_embed.shape[1] != expected:
        raise ValueError(
            f'pos_embed holds {pos_embed.shape[1]} positions; {num_prefix_tokens} extra and a map of '
            f'{src_hw[0]} x {src_hw[1]} are {expected}'
        )
    if tuple(src_hw) == tuple(dst_hw):
        return pos_embed
    prefix, table = pos_embed[:, :num_prefix_tokens], pos_embed[:, num_prefix_tokens:]
    table_bchw = table.unflatten(1, tuple(src_hw)).permute(0, 3, 1, 2).float()
    resized = F.interpolate(table_bchw, size=tuple(dst_hw), mode='bicubic', align_corners=False, antialias=antialias)
    return torch.cat([prefix, resized.flatten(2).transpose(1, 2).to(pos_embed.dtype)], dim=1)
