# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmpretrain's VisionTransformer, DeiT 3 and BEiTViT, bare or within an algorithm's checkpoint (``backbone.*``).

MAE's, BEiT's and a classifier's other parts (``neck.*``, ``head.*``, ``target_generator.*``) are
left out. The final norm is ``ln1``; where there is none, ``ln2``, the norm of the averaged patch
features.

DeiT 3 in mmpretrain 1.2 applies ``ln1`` before the MLP too and leaves ``ln2`` unused. The weights
that OpenMMLab distributes for it are DeiT III's own, which were trained with both, so both are
taken to where they belong; a DeiT 3 that mmpretrain has trained itself computes something else
here.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from addp_mm.layouts.beit import finish_beit
from addp_mm.layouts.key_rules import WB, Rule, require, translate
from addp_mm.layouts.vit_weights import refuse_swiglu, vit_layout

_BACKBONE = r'(?:backbone\.)?'
_LAYER = rf'{_BACKBONE}layers\.(\d+)\.'

RULES: tuple[Rule, ...] = (
    (rf'{_BACKBONE}(cls_token|pos_embed)', r'\1'),
    (rf'{_BACKBONE}patch_embed\.projection\.{WB}', r'patch_embed.projection.\1'),
    (rf'{_BACKBONE}pre_norm\.{WB}', r'pre_norm.\1'),
    (rf'{_LAYER}ln([12])\.{WB}', r'blocks.\1.norm\2.\3'),
    (rf'{_LAYER}attn\.(qkv|proj)\.{WB}', r'blocks.\1.attn.\2.\3'),
    (rf'{_LAYER}ffn\.layers\.0\.0\.{WB}', r'blocks.\1.mlp.fc1.\2'),
    (rf'{_LAYER}ffn\.layers\.1\.{WB}', r'blocks.\1.mlp.fc2.\2'),
    (rf'{_LAYER}(?:attn|ffn)\.gamma([12])\.weight', r'blocks.\1.ls\2.gamma'),
    (rf'{_LAYER}gamma_([12])', r'blocks.\1.ls\2.gamma'),
    (rf'{_LAYER}attn\.([qv]_bias)', r'blocks.\1.attn.\2'),
    (rf'{_LAYER}attn\.relative_position_bias_table', r'blocks.\1.attn.rel_pos_bias_table'),
    (rf'{_BACKBONE}rel_pos_bias\.relative_position_bias_table', 'rel_pos_bias_table'),
    (rf'{_BACKBONE}ln1\.{WB}', r'final_norm.\1'),
    (rf'{_BACKBONE}ln2\.{WB}', r'fc_norm.\1'),
)
UNUSED = (
    r'(neck|head|target_generator|data_preprocessor)\..+',
    rf'{_BACKBONE}mask_token',
    # counts places
    rf'{_BACKBONE}(rel_pos_bias|layers\.\d+\.attn)\.relative_position_index',
)


def convert_mmpretrain_vit(state_dict: Mapping[str, Tensor], grid: tuple[int, int] | None = None) -> dict[str, Tensor]:
    """Translate a state dict of mmpretrain into that of :class:`~addp_mm.models.backbones.ADDPViT`.

    Args:
        state_dict: Of a backbone or of an algorithm or classifier with it. Left as it is.
        grid: (height, width) of the positions in patches, see
            :func:`~addp_mm.layouts.vit_weights.complete_stem`.

    Returns:
        A new state dict in float32.

    Raises:
        ValueError: If a key is unaccounted for, or the weights are incomplete or have gated MLPs.
    """
    refuse_swiglu(state_dict)
    weights = translate(state_dict, RULES, UNUSED, "mmpretrain's VisionTransformer")
    require(weights, ('patch_embed.projection.weight', 'blocks.0.attn.qkv.weight'), "mmpretrain's VisionTransformer")
    finish_beit(weights, grid)
    return weights


def _matches(state_dict: Mapping[str, Tensor]) -> bool:
    return any(
        f'{prefix}patch_embed.projection.weight' in state_dict
        and f'{prefix}layers.0.ln1.weight' in state_dict
        and f'{prefix}layers.0.attn.qkv.weight' in state_dict
        for prefix in ('', 'backbone.')
    )


MMPRETRAIN_VIT = vit_layout(
    'mmpretrain ViT',
    _matches,
    convert_mmpretrain_vit,
    norm=rf'{_BACKBONE}ln1\.weight',
    pooled_norm=rf'{_BACKBONE}ln2\.weight',
)
