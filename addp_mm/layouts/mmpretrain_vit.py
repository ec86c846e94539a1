# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmpretrain's VisionTransformer, DeiT 3 and BEiTViT.

The checkpoint contains the backbone, or an algorithm or classifier with it (``backbone.*``). The
other components of MAE, BEiT or a classifier (``neck.*``, ``head.*``, ``target_generator.*``) are
left out. The final norm is ``ln1``, or ``ln2``, the norm of averaged patch features, if there is no
``ln1``.

DeiT 3 in mmpretrain 1.2 has a fault: it applies ``ln1`` before the MLP too and never uses ``ln2``.
The weights that OpenMMLab distributes for it are DeiT III's own. They were trained with both norms,
and both are converted. A DeiT 3 that was trained in mmpretrain gives other results in this package.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from addp_mm.layouts.key_rules import WB, Rule
from addp_mm.layouts.vit_weights import vit_layout

_BACKBONE = r'(?:backbone\.)?'
_LAYER = rf'{_BACKBONE}layers\.(\d+)\.'

_RULES: tuple[Rule, ...] = (
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
_UNUSED = (
    r'(neck|head|target_generator|data_preprocessor)\..+',
    rf'{_BACKBONE}mask_token',
    # a buffer of indices, computed from the size
    rf'{_BACKBONE}(rel_pos_bias|layers\.\d+\.attn)\.relative_position_index',
)


def _matches(state_dict: Mapping[str, Tensor]) -> bool:
    return any(
        f'{prefix}patch_embed.projection.weight' in state_dict
        and f'{prefix}layers.0.ln1.weight' in state_dict
        and f'{prefix}layers.0.attn.qkv.weight' in state_dict
        for prefix in ('', 'backbone.')
    )


MMPRETRAIN_VIT = vit_layout('mmpretrain ViT', _matches, _RULES, _UNUSED)
