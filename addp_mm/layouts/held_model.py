# Copyright (c) addp_mm contributors. Apache-2.0.
"""Name the model whose weights a checkpoint holds, for messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from addp_mm.layouts.key_rules import without_prefix
from addp_mm.layouts.layout import Layout

#: Models without a layout: patterns of keys that all must exist, and a key that must not. The first
#: match is used.
_KEYS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ('addp_mm.ADDPViT', (r'patch_embed\.projection\.weight', r'blocks\.0\.attn\.qkv\.weight'), ''),
    (
        'DINOv3 ViT',
        (r'patch_embed\.proj\.weight', r'reg_token|storage_tokens', r'blocks\.0\.(gamma_1|ls1\.gamma)'),
        'pos_embed',
    ),
    ('Hiera', (r'patch_embed\.proj\.weight', r'blocks\.\d+\.proj\.weight'), ''),
    ('Swin', (r'(layers|stages)[._]0\.blocks\.0\.attn\.(w_msa\.)?relative_position_bias_table',), ''),
    ('ConvNeXt', (r'stages\.0\.(blocks\.)?0\.(conv_dw|dwconv|depthwise_conv)\.weight',), ''),
    ('ResNet', (r'(conv1|stem\.0|conv1\.0)\.weight', r'layer1\.0\.conv1\.weight'), ''),
)
_OF_TIMM = 'timm_model.'


class HeldModel(NamedTuple):
    """The model of a checkpoint.

    Attributes:
        kind: Name of its layout, or of its family.
        prefix: Start of its weights' names, with a dot at its end; '' if there is none.
        is_ours: Whether it has the names of TimmBackbone or VOLO.
    """

    kind: str
    prefix: str
    is_ours: bool

    def __str__(self) -> str:
        ours = 'addp_mm.VOLO' if self.kind == 'VOLO' else f'addp_mm.TimmBackbone of {self.kind}'
        name = ours if self.is_ours else self.kind
        return f'{name} (under the prefix {self.prefix!r})' if self.prefix else name


def held_model(state_dict: Mapping[str, Tensor], layouts: Iterable[Layout]) -> HeldModel | None:
    """Find out whose weights a checkpoint holds; None if it is not known.

    Args:
        state_dict: Tensors by name.
        layouts: The known layouts.
    """
    names = [key.split('.') for key in state_dict]
    starts = dict.fromkeys('.'.join(parts[:depth]) + '.' for depth in (1, 2) for parts in names if len(parts) > depth)
    for prefix in ['', *starts]:
        weights = without_prefix(state_dict, prefix)
        kind = _kind_of(weights, layouts)
        if kind is not None:
            is_ours = f'.{prefix}'.endswith(f'.{_OF_TIMM}')
            return HeldModel(kind, prefix.removesuffix(_OF_TIMM) if is_ours else prefix, is_ours)
    return None


def _kind_of(weights: Mapping[str, Tensor], layouts: Iterable[Layout]) -> str | None:
    for name, patterns, absent in _KEYS:
        if absent not in weights and all(any(re.fullmatch(pattern, key) for key in weights) for pattern in patterns):
            return name
    return next((layout.name for layout in layouts if layout.matches(weights)), None)
