# Copyright (c) addp_mm contributors. Apache-2.0.
"""BEiT and BEiT v2 (https://github.com/microsoft/unilm, folders beit and beit2), and timm's Beit.

The table of relative positions that pre-training shares among the blocks is copied into each block,
as BEiT's own fine-tuning does. Query and value have a bias; the bias of the key becomes zero.
Pre-trained files have ``norm`` as their last layer. Fine-tuned files have ``fc_norm``, the norm of
the averaged patch features, which becomes the final norm. Heads, and the layers that BEiT v2 only
uses in pre-training (``cls_pt_layers``), are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from addp_mm.layouts.key_rules import WB, Rule
from addp_mm.layouts.timm_vit import PLAIN
from addp_mm.layouts.vit_weights import HEADS, vit_layout

_RULES: tuple[Rule, ...] = (
    *PLAIN,
    (r'rel_pos_bias\.relative_position_bias_table', 'rel_pos_bias_table'),
    (r'blocks\.(\d+)\.attn\.relative_position_bias_table', r'blocks.\1.attn.rel_pos_bias_table'),
    (r'blocks\.(\d+)\.attn\.([qv]_bias)', r'blocks.\1.attn.\2'),
)
_UNUSED = (
    *HEADS,
    r'mask_token',
    rf'lm_head\.{WB}',
    r'cls_pt_layers\..+',
    rf'cls_pt_(norm|lm_head)\.{WB}',
    # a buffer of indices, computed from the size
    r'(rel_pos_bias|(blocks|cls_pt_layers)\.\d+\.attn)\.relative_position_index',
)


def _matches(state_dict: Mapping[str, Tensor]) -> bool:
    return 'patch_embed.proj.weight' in state_dict and any(
        key in state_dict
        for key in (
            'blocks.0.attn.q_bias',
            'blocks.0.attn.relative_position_bias_table',
            'rel_pos_bias.relative_position_bias_table',
        )
    )


BEIT = vit_layout('BEiT', _matches, _RULES, _UNUSED, class_position=True)
