# Copyright (c) addp_mm contributors. Apache-2.0.
"""ViTs with the names of timm's VisionTransformer.

Sources: timm (https://github.com/huggingface/pytorch-image-models; AugReg, DeiT III, CLIP and
others), MAE (https://github.com/facebookresearch/mae), DeiT and DeiT III
(https://github.com/facebookresearch/deit), DINOv2 (https://github.com/facebookresearch/dinov2).

Classification heads are left out. A fine-tuned MAE has ``fc_norm`` instead of a final norm, the
norm of the averaged patch features. It becomes the final norm: ``ADDPViT(out_type='avg_featmap')``
applies it to the averaged features too. The epsilon of norms and the kind of GELU cannot be
inferred from weights. timm's CLIP models have other values: give ``norm_eps=1e-5``. Models with
quick GELU can be loaded, but give other results.

DINOv2's training saves its blocks in chunks, ``blocks.CHUNK.BLOCK``. It counts the blocks through
all chunks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from addp_mm.layouts.key_rules import VIT_BLOCK, WB, Rule
from addp_mm.layouts.vit_weights import HEADS, LAYER_SCALE, vit_layout

#: The tensors of every plain ViT.
PLAIN: tuple[Rule, ...] = (
    (r'cls_token', 'cls_token'),
    (r'pos_embed', 'pos_embed'),
    (rf'patch_embed\.proj\.{WB}', r'patch_embed.projection.\1'),
    (rf'blocks\.{VIT_BLOCK}', r'blocks.\1'),
    *LAYER_SCALE,
    (rf'norm\.{WB}', r'final_norm.\1'),
    (rf'fc_norm\.{WB}', r'fc_norm.\1'),
)
_TIMM: tuple[Rule, ...] = (
    (rf'norm_pre\.{WB}', r'pre_norm.\1'),
    (r'reg_token', 'register_tokens'),
    (r'dist_token', 'dist_token'),
)
_DINOV2: tuple[Rule, ...] = ((r'register_tokens', 'register_tokens'),)

_MASK_TOKEN = r'mask_token'
_MAE_DECODER = (r'decoder_pos_embed', r'decoder_(embed|norm|pred)\.(weight|bias)', rf'decoder_blocks\.{VIT_BLOCK}')
_ATTENTION_POOLING = r'attn_pool\..+'

_CHUNK = re.compile(r'blocks\.\d+\.(?=\d+\.)')
#: Keys that MAGE, ADDP and BEiT add to the names of a plain ViT.
_OTHERS = re.compile(r'token_emb|tokenizer_norm|.*(\.attn\.q_bias|relative_position_bias_table)$')


def without_chunks(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename ``blocks.CHUNK.BLOCK.*`` to ``blocks.BLOCK.*``.

    Raises:
        ValueError: Two chunks have a block of the same number.
    """
    weights = {_CHUNK.sub('blocks.', key, count=1): value for key, value in state_dict.items()}
    if len(weights) < len(state_dict):
        raise ValueError(
            'the blocks are in chunks (blocks.CHUNK.BLOCK), and two chunks have a block of the same number. '
            'DINOv2 counts the blocks through all chunks'
        )
    return weights


def _is_vit(state_dict: Mapping[str, Tensor]) -> bool:
    return (
        'patch_embed.proj.weight' in state_dict
        and 'blocks.0.attn.qkv.weight' in state_dict
        and not any(map(_OTHERS.match, state_dict))
    )


def _is_mae(state_dict: Mapping[str, Tensor]) -> bool:
    # An encoder that was extracted from the training may have the decoder's mask token, or more of
    # it.
    return (
        _is_vit(state_dict)
        and not _is_dinov2(state_dict)
        and any(key.startswith(('decoder_', 'mask_token')) for key in state_dict)
    )


def _is_dinov2(state_dict: Mapping[str, Tensor]) -> bool:
    if 'blocks.0.0.attn.qkv.weight' in state_dict:
        return 'patch_embed.proj.weight' in state_dict
    return (
        _is_vit(state_dict)
        and 'blocks.0.ls1.gamma' in state_dict
        and ('mask_token' in state_dict or 'register_tokens' in state_dict)
    )


def _is_timm(state_dict: Mapping[str, Tensor]) -> bool:
    return _is_vit(state_dict) and not _is_mae(state_dict) and not _is_dinov2(state_dict)


MAE = vit_layout('MAE', _is_mae, PLAIN, (*HEADS, _MASK_TOKEN, *_MAE_DECODER), class_position=True)
DINOV2 = vit_layout(
    'DINOv2', _is_dinov2, (*PLAIN, *_DINOV2), (*HEADS, _MASK_TOKEN), prepare=without_chunks, class_position=True
)
TIMM_VIT = vit_layout('timm ViT', _is_timm, (*PLAIN, *_TIMM), (*HEADS, _ATTENTION_POOLING))
