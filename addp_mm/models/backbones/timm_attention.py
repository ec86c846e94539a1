# Copyright (c) addp_mm contributors. Apache-2.0.
"""Attention of timm's BEiT and MViTv2 with relative positions of any map.

A block gets the size of the map with its arguments. It is therefore right also when activations are
recomputed in the backward pass, after an image of another size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from timm.models import beit, mvitv2
from torch import Tensor, nn

from addp_mm.models.layers.rel_pos import resize_rel_pos
from addp_mm.models.layers.rel_pos_table import rel_pos_table_bias


@dataclass(frozen=True)
class MapBias:
    """What BEiT hands to all its blocks.

    Attributes:
        size: Height and width of the map in tokens.
        bias: Bias (1, heads, 1 + h * w, 1 + h * w) that all blocks share; None if there is none.
    """

    size: tuple[int, int]
    bias: Tensor | None


class SharedBias(nn.Module):
    """Stands for BEiT's module of shared biases, and keeps the name of its table.

    Args:
        built: timm's module; None if the model has none.

    Attributes:
        size: Height and width of the map in tokens; set before every forward pass.
    """

    def __init__(self, built: Any) -> None:
        super().__init__()
        self.window_size: Any = None if built is None else built.window_size
        self.relative_position_bias_table = None if built is None else built.relative_position_bias_table
        self.size = (0, 0)

    def forward(self) -> MapBias:
        """The size of the map, and the bias for it."""
        table = self.relative_position_bias_table
        return MapBias(self.size, None if table is None else rel_pos_table_bias(table, self.window_size, self.size))


class _BeitAttention(beit.Attention):
    """BEiT's attention, whose own bias is resized to the map."""

    def forward(self, x: Tensor, shared_rel_pos_bias: MapBias) -> Tensor:  # type: ignore[override]
        self._map_size = shared_rel_pos_bias.size
        return super().forward(x, shared_rel_pos_bias=shared_rel_pos_bias.bias)

    def _get_rel_pos_bias(self) -> Tensor:
        return rel_pos_table_bias(self.relative_position_bias_table, self.window_size, self._map_size)


def adapt_beit_attention(module: nn.Module) -> None:
    """Let an attention layer of BEiT resize its biases; leave other modules as they are."""
    if type(module) is beit.Attention:
        module.__class__ = _BeitAttention


class _ResizedTables(nn.Module):
    """Relative positions of MViTv2, resized to the map of the present call."""

    def forward(self, x: Tensor, feat_size: list[int]) -> tuple[Tensor, list[int]]:
        self._feat_size = feat_size
        return super().forward(x, feat_size)

    @property
    def rel_pos_h(self) -> Tensor:
        return self._resized('rel_pos_h', 0)

    @property
    def rel_pos_w(self) -> Tensor:
        return self._resized('rel_pos_w', 1)

    def _resized(self, name: str, axis: int) -> Tensor:
        side = self._feat_size[axis]
        queries, keys = (side // _stride(self, pool, axis) for pool in ('pool_q', 'pool_k'))
        tables: dict[str, Any] = self._parameters
        return resize_rel_pos(tables[name], 2 * max(queries, keys) - 1)


class _MViTAttention(_ResizedTables, mvitv2.MultiScaleAttention):  # type: ignore[misc]  # a property instead of the parameter
    pass


class _MViTAttentionPoolFirst(_ResizedTables, mvitv2.MultiScaleAttentionPoolFirst):  # type: ignore[misc]
    pass


def adapt_mvit_attention(module: nn.Module) -> None:
    """Let an attention layer of MViTv2 resize its positions; leave other modules as they are."""
    if type(module) is mvitv2.MultiScaleAttention:
        module.__class__ = _MViTAttention
    elif type(module) is mvitv2.MultiScaleAttentionPoolFirst:
        module.__class__ = _MViTAttentionPoolFirst


def _stride(module: nn.Module, pool: str, axis: int) -> int:
    """Stride of a pooling of queries or keys; 1 without pooling."""
    stride = getattr(getattr(module, pool), 'stride', 1)
    return stride if isinstance(stride, int) else stride[axis]
