# Copyright (c) addp_mm contributors. Apache-2.0.
"""ViTs that name their weights as timm's VisionTransformer does.

Sources: timm (https://github.com/huggingface/pytorch-image-models; AugReg, DeiT III, CLIP and
others), MAE (https://github.com/facebookresearch/mae), DeiT and DeiT III
(https://github.com/facebookresearch/deit), DINOv2 (https://github.com/facebookresearch/dinov2).

Classification heads are left out. A fine-tuned MAE has no final norm but ``fc_norm``, the norm of
the averaged patch features: it becomes the final norm, which ``ADDPViT(out_type='avg_featmap')``
applies at that very place. The epsilon of norms and the kind of GELU are in no tensor: timm's CLIP
models with other ones (``norm_eps=1e-5``, quick GELU) load, and the latter compute something else.

DINOv2's training wraps its blocks in chunks, ``blocks.CHUNK.BLOCK``, and counts the blocks through
all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from torch import Tensor

from addp_mm.layouts.key_rules import VIT_BLOCK, WB, Rule, translate
from addp_mm.layouts.vit_weights import HEADS, LAYER_SCALE, choose_final_norm, complete_stem, refuse_swiglu, vit_layout

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

_MASK_TOKEN = (r'mask_token',)
_MAE_DECODER = (r'decoder_pos_embed', r'decoder_(embed|norm|pred)\.(weight|bias)', rf'decoder_blocks\.{VIT_BLOCK}')
_ATTENTION_POOLING = (r'attn_pool\..+',)

_CHUNK = re.compile(r'blocks\.\d+\.(?=\d+\.)')
#: What others add to a plain ViT's names: MAGE and ADDP, which grew out of MAE's code, and BEiT.
_OTHERS = re.compile(r'token_emb|tokenizer_norm|.*(\.attn\.q_bias|relative_position_bias_table)$')


def without_chunks(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``blocks.CHUNK.BLOCK.*`` as ``blocks.BLOCK.*``; all else as it is.

    Raises:
        ValueError: Two chunks have a block of the same number.
    """
    weights = {_CHUNK.sub('blocks.', key, count=1): value for key, value in state_dict.items()}
    if len(weights) < len(state_dict):
        raise ValueError(
            'the blocks are in chunks (blocks.CHUNK.BLOCK) and counted anew in each; DINOv2 counts them '
            'through all chunks'
        )
    return weights


def _convert(
    state_dict: Mapping[str, Tensor],
    rules: tuple[Rule, ...],
    unused: tuple[str, ...],
    what: str,
    class_position: bool = False,
    grid: tuple[int, int] | None = None,
) -> dict[str, Tensor]:
    refuse_swiglu(state_dict)
    weights = translate(without_chunks(state_dict), rules, unused, what)
    if 'patch_embed.projection.weight' not in weights:
        raise ValueError(f'no whole {what}: patch_embed.proj.weight is missing')
    choose_final_norm(weights)
    complete_stem(weights, grid, class_position)
    return weights


convert_mae = partial(
    _convert, rules=PLAIN, unused=(*HEADS, *_MASK_TOKEN, *_MAE_DECODER), what='MAE', class_position=True
)
convert_dinov2 = partial(
    _convert, rules=(*PLAIN, *_DINOV2), unused=(*HEADS, *_MASK_TOKEN), what='DINOv2', class_position=True
)
convert_timm_vit = partial(
    _convert, rules=(*PLAIN, *_TIMM), unused=(*HEADS, *_ATTENTION_POOLING), what="timm's VisionTransformer"
)


def _is_vit(state_dict: Mapping[str, Tensor]) -> bool:
    return (
        'patch_embed.proj.weight' in state_dict
        and 'blocks.0.attn.qkv.weight' in state_dict
        and not any(map(_OTHERS.match, state_dict))
    )


def _is_mae(state_dict: Mapping[str, Tensor]) -> bool:
    # An encoder cut out of the training may keep the decoder's mask token, or more of it.
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


MAE = vit_layout('MAE', _is_mae, convert_mae)
DINOV2 = vit_layout('DINOv2', _is_dinov2, convert_dinov2)
TIMM_VIT = vit_layout('timm ViT', _is_timm, convert_timm_vit)
