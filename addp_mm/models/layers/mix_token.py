# Copyright (c) addp_mm contributors. Apache-2.0.
"""Mix-token: exchange a box of tokens between the images of a batch."""

from typing import NamedTuple

import torch
from torch import Tensor

#: First row, first column, row after the last and column after the last one, in tokens.
Box = tuple[int, int, int, int]


class MixedTokens(NamedTuple):
    """Output of a backbone that mixed tokens.

    Attributes:
        tokens: (B, 1 + L, C), class token first. The other tokens are back in their own image.
        exchanged: Share of the tokens of an image that came from the flipped batch, in [0, 1].
    """

    tokens: Tensor
    exchanged: float


@torch.compiler.disable  # it makes numbers of tensors
def draw_box(height: int, width: int) -> Box:
    """Draw a box from a map of tokens, with torch's global generator on the CPU.

    The share of the map is uniform, Beta(1, 1), as in token labelling (arXiv 2104.10858), and the
    centre of the box too; parts outside of the map are cut off. The box may be empty.
    """
    side = (1 - torch.rand(()).item()) ** 0.5
    box = []
    for size in (height, width):
        half, centre = int(size * side) // 2, int(torch.randint(size, ()))
        box.append((max(centre - half, 0), min(centre + half, size)))
    (top, bottom), (left, right) = box
    return top, left, bottom, right


def exchange_box(maps: Tensor, box: Box, scale: int = 1) -> Tensor:
    """Replace a box of each map by that of the flipped batch.

    Args:
        maps: (B, H, W, C). In an odd batch, the map in the middle stays.
        box: From :func:`draw_box`.
        scale: Positions of ``maps`` for one token of the box, in each direction. Defaults to 1.

    Returns:
        New maps. The same exchange again restores the old ones.
    """
    top, left, bottom, right = (scale * one for one in box)
    mixed = maps.clone()
    mixed[:, top:bottom, left:right] = maps.flip(0)[:, top:bottom, left:right]
    return mixed
