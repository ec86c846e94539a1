# Copyright (c) addp_mm contributors. Apache-2.0.
"""Multi-head self-attention on the fused kernels of PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addp_mm.models.layers.rel_pos import rel_pos_bias
from addp_mm.models.layers.rel_pos_table import CLASS_ENTRIES, num_offsets, rel_pos_table_bias


class Attention(nn.Module):
    """Multi-head self-attention through ``scaled_dot_product_attention``.

    PyTorch's kernels hold scores and softmax of float16 and bfloat16 inputs in float32 and subtract
    the row's maximum, which is what the published code does by hand under float16.

    Args:
        embed_dims (int): Width of the tokens.
        num_heads (int): Number of heads; must divide ``embed_dims``.
        qkv_bias (bool): Whether query, key and value have a bias. Defaults to True.
        attn_drop_rate (float): Dropout of the attention weights. Defaults to 0.
        proj_drop_rate (float): Dropout after the projection. Defaults to 0.
        rel_pos_size (tuple[int, int], optional): Height and width of the map (or window) in tokens.
            Where given, decomposed relative positions of that size, zero at first, are added to the
            scores; maps of other sizes resize them. Defaults to None: none.
        rel_pos_table_size (tuple[int, int], optional): The same for BEiT's relative positions, a
            table with one number for each head and offset, zero at first. Defaults to None: none.
        with_cls_token (bool): Whether that table has entries for a class token before the map.
            Defaults to False.

    Raises:
        ValueError: ``num_heads`` does not divide ``embed_dims``, or both kinds of relative
            positions are asked for.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        qkv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        rel_pos_size: tuple[int, int] | None = None,
        rel_pos_table_size: tuple[int, int] | None = None,
        with_cls_token: bool = False,
    ) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(f'embed_dims {embed_dims} cannot be divided into num_heads {num_heads} equal heads')
        if rel_pos_size is not None and rel_pos_table_size is not None:
            raise ValueError(
                'relative positions are decomposed (rel_pos_size) or a table (rel_pos_table_size), not both'
            )
        self.num_heads = num_heads
        self.attn_drop_rate = attn_drop_rate
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop_rate)
        self.use_rel_pos = rel_pos_size is not None
        if rel_pos_size is not None:
            head_dims = embed_dims // num_heads
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * rel_pos_size[0] - 1, head_dims))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * rel_pos_size[1] - 1, head_dims))
        self.rel_pos_table_size = rel_pos_table_size
        if rel_pos_table_size is not None:
            rows = num_offsets(rel_pos_table_size) + CLASS_ENTRIES * with_cls_token
            self.rel_pos_bias_table = nn.Parameter(torch.zeros(rows, num_heads))

    def forward(self, x: Tensor, hw: tuple[int, int] | None = None) -> Tensor:
        """Attend.

        Args:
            x (Tensor): (B, N, C); with relative positions N = P + H * W, the P extra tokens (class
                token) first.
            hw (tuple[int, int], optional): Height and width of the map; relative positions need it.

        Returns:
            Tensor: (B, N, C).
        """
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        bias = None
        if self.use_rel_pos:
            bias = rel_pos_bias(q, self.rel_pos_h, self.rel_pos_w, hw)
        elif self.rel_pos_table_size is not None:
            bias = rel_pos_table_bias(self.rel_pos_bias_table, self.rel_pos_table_size, hw).to(q.dtype)
        drop = self.attn_drop_rate if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))
