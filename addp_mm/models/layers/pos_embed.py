# Copyright (c) addp_mm contributors. Apache-2.0.
"""Resize learned position embeddings."""

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
    """Resize position embeddings bicubically, height and width independently.

    Args:
        pos_embed: (1, P + H * W, C), row-major, the P extra tokens first.
        src_hw: Height H and width W of the given embeddings, in tokens.
        dst_hw: Height H' and width W' of the result.
        num_prefix_tokens: P; the embeddings of these tokens stay. Defaults to 1, the class token.
        antialias: Whether to use timm's cubic filter, which smooths when it shrinks, instead of the
            filter in the code of MAE and ADDP. Defaults to False.

    Returns:
        (1, P + H' * W', C), in the embeddings' dtype.

    Raises:
        ValueError: There are not P + H * W embeddings.
    """
    expected = num_prefix_tokens + src_hw[0] * src_hw[1]
    if pos_embed.shape[1] != expected:
        raise ValueError(
            f'pos_embed has {pos_embed.shape[1]} positions, but {num_prefix_tokens} extra tokens and a '
            f'map of {src_hw[0]} x {src_hw[1]} need {expected}'
        )
    if tuple(src_hw) == tuple(dst_hw):
        return pos_embed
    prefix, table = pos_embed[:, :num_prefix_tokens], pos_embed[:, num_prefix_tokens:]
    table_bchw = table.unflatten(1, tuple(src_hw)).permute(0, 3, 1, 2).float()
    resized = F.interpolate(table_bchw, size=tuple(dst_hw), mode='bicubic', align_corners=False, antialias=antialias)
    return torch.cat([prefix, resized.flatten(2).transpose(1, 2).to(pos_embed.dtype)], dim=1)
