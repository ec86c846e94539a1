# Copyright (c) addp_mm contributors. Apache-2.0.
"""BEiT and BEiT v2 (https://github.com/microsoft/unilm, folders beit and beit2), and timm's Beit.

The table of relative positions that pre-training shares among the blocks is copied into each, as
BEiT's own fine-tuning does. Query and value have a bias and the key has none: it becomes zero.
Pre-training files end in ``norm``; fine-tuned ones have ``fc_norm``, the norm of the averaged patch
features, and it becomes the final norm. Heads, and what BEiT v2 has beside the backbone while
pre-training (``cls_pt_layers``), are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from addp_mm.layouts.key_rules import WB, Rule, require, translate
from addp_mm.layouts.timm_vit import PLAIN
from addp_mm.layouts.vit_weights import (
    HEADS,
    choose_final_norm,
    complete_stem,
    join_qkv_bias,
    refuse_swiglu,
    spread_shared_table,
    vit_layout,
)

RULES: tuple[Rule, ...] = (
    *PLAIN,
    (r'rel_pos_bias\.relative_position_bias_table', 'rel_pos_bias_table'),
    (r'blocks\.(\d+)\.attn\.relative_position_bias_table', r'blocks.\1.attn.rel_pos_bias_table'),
    (r'blocks\.(\d+)\.attn\.([qv]_bias)', r'blocks.\1.attn.\2'),
)
UNUSED = (
    *HEADS,
    r'mask_token',
    rf'lm_head\.{WB}',
    r'cls_pt_layers\..+',
    rf'cls_pt_(norm|lm_head)\.{WB}',
    # counts places
    r'(rel_pos_bias|(blocks|cls_pt_layers)\.\d+\.attn)\.relative_position_index',
)


def convert_beit(state_dict: Mapping[str, Tensor], grid: tuple[int, int] | None = None) -> dict[str, Tensor]:
    """Translate BEiT's state dict into that of :class:`~addp_mm.models.backbones.ADDPViT`.

    Args:
        state_dict: Pre-trained or fine-tuned, bare. Left as it is.
        grid: (height, width) of the positions in patches. Not needed: those of BEiT always hold the
            class token's.

    Returns:
        A new state dict in float32.

    Raises:
        ValueError: If a key is unaccounted for, or the weights are incomplete or have gated MLPs.
    """
    refuse_swiglu(state_dict)
    weights = translate(state_dict, RULES, UNUSED, 'BEiT')
    require(weights, ('patch_embed.projection.weight', 'blocks.0.attn.qkv.weight'), 'a whole BEiT')
    finish_beit(weights, grid, class_position=True)
    return weights


def finish_beit(weights: dict[str, Tensor], grid: tuple[int, int] | None, class_position: bool = False) -> None:
    """What follows the renaming, whoever's names they were. In place; see :func:`complete_stem`."""
    join_qkv_bias(weights)
    spread_shared_table(weights)
    choose_final_norm(weights)
    complete_stem(weights, grid, class_position)


def _matches(state_dict: Mapping[str, Tensor]) -> bool:
    return 'patch_embed.proj.weight' in state_dict and any(
        key in state_dict
        for key in (
            'blocks.0.attn.q_bias',
            'blocks.0.attn.relative_position_bias_table',
            'rel_pos_bias.relative_position_bias_table',
        )
    )


BEIT = vit_layout('BEiT', _matches, convert_beit)
