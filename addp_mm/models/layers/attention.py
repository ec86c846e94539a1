# Copyright (c) addp_mm contributors. Apache-2.0.
"""Multi-head self-attention on PyTorch's fused kernels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addp_mm.models.layers.dropout import Dropout, attend_with_dropout
from addp_mm.models.layers.rel_pos_attention import attend
from addp_mm.models.layers.rel_pos_table import CLASS_ENTRIES, num_offsets, rel_pos_table_bias


class Attention(nn.Module):
    """Multi-head self-attention through ``scaled_dot_product_attention``.

    For float16 and bfloat16 inputs PyTorch's kernels compute scores and softmax in float32 and
    subtract the maximum of each row. The published code does the same by hand under float16.

    Args:
        embed_dims: Width of the tokens.
        num_heads: Number of heads; must divide ``embed_dims``.
        qkv_bias: Whether query, key and value have a bias. Defaults to True.
        attn_drop_rate: Dropout of the attention weights. Defaults to 0.
        proj_drop_rate: Dropout after the projection. Defaults to 0.
        rel_pos_size: Height and width in tokens of the map (or window) whose decomposed relative
            positions are learned, with initial value zero, and added to the scores. They are
            resized for maps of other sizes. Defaults to None: no relative positions.
        rel_pos_table_size: The same for BEiT's table of relative positions, one number for each
            head and offset. Defaults to None: no table.
        with_cls_token: Whether that table has entries for a class token. Defaults to False.

    Raises:
        ValueError: ``num_heads`` does not divide ``embed_dims``, or both kinds of relative
            positions are given.
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
        self.proj_drop = Dropout(proj_drop_rate)
        self.use_rel_pos = rel_pos_size is not None
        if rel_pos_size is not None:
            head_dims = embed_dims // num_heads
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * rel_pos_size[0] - 1, head_dims))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * rel_pos_size[1] - 1, head_dims))
        self.rel_pos_table_size = rel_pos_table_size
        if rel_pos_table_size is not None:
            rows = num_offsets(rel_pos_table_size) + (CLASS_ENTRIES if with_cls_token else 0)
            self.rel_pos_bias_table = nn.Parameter(torch.zeros(rows, num_heads))

    @property
    def needs_map(self) -> bool:
        """Whether :meth:`forward` needs the height and width of the map."""
        return self.use_rel_pos or self.rel_pos_table_size is not None

    def forward(self, x: Tensor, hw: tuple[int, int] | None = None) -> Tensor:
        """Attend.

        Args:
            x: (B, N, C). With relative positions N = P + H * W, the P extra tokens (a class token)
                first.
            hw: Height H and width W of the map; relative positions need them. Defaults to None.

        Returns:
            (B, N, C).
        """
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        drop = self.attn_drop_rate if self.training else 0.0
        out = self._attend(q, k, v, hw, drop)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, hw: tuple[int, int] | None, drop: float) -> Tensor:
        """Attention of each head: (B, heads, N, head_dims) each, with relative positions if any."""
        if not self.needs_map:
            return attend_with_dropout(q, k, v, None, drop) if drop else F.scaled_dot_product_attention(q, k, v)
        if hw is None:
            raise ValueError('attention with relative positions needs hw, the height and width of the map')
        if self.rel_pos_table_size is not None:
            bias = rel_pos_table_bias(self.rel_pos_bias_table, self.rel_pos_table_size, hw).to(q.dtype)
            if drop:
                return attend_with_dropout(q, k, v, bias, drop)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return attend(q, k, v, self.rel_pos_h, self.rel_pos_w, hw, drop)
