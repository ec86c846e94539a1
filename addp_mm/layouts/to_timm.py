# Copyright (c) addp_mm contributors. Apache-2.0.
"""The way back: ADDPViT's weights as timm's VisionTransformer, usable without OpenMMLab."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from addp_mm.imagenet import IMAGENET_MEAN, IMAGENET_STD
from addp_mm.layouts.key_rules import VIT_BLOCK, WB, Rule, translate
from addp_mm.layouts.vit_weights import num_blocks, vit_args

_RULES: tuple[Rule, ...] = (
    (r'cls_token', 'cls_token'),
    (r'register_tokens', 'reg_token'),
    (r'pos_embed', 'pos_embed'),
    (rf'patch_embed\.projection\.{WB}', r'patch_embed.proj.\1'),
    (rf'pre_norm\.{WB}', r'norm_pre.\1'),
    (rf'blocks\.{VIT_BLOCK}', r'blocks.\1'),
    (r'blocks\.(\d+\.ls[12]\.gamma)', r'blocks.\1'),
)
#: Output of ADDPViT, and where timm pools and normalises for the same.
_POOLING = {'cls_token': 'token', 'avg_featmap': 'avg', 'featmap': '', 'raw': ''}
#: Names that timm registers, by width; the arguments decide about everything.
_ARCHITECTURES = {
    192: 'vit_tiny_patch16_224',
    384: 'vit_small_patch16_224',
    1024: 'vit_large_patch16_224',
    1280: 'vit_huge_patch14_224',
}


def to_timm(
    state_dict: Mapping[str, Tensor],
    num_heads: int,
    img_size: tuple[int, int] | None = None,
    out_type: str = 'cls_token',
) -> tuple[dict[str, Tensor], dict]:
    """Translate ADDPViT's weights into those of timm's VisionTransformer.

    timm knows no bias of the patch projection where there is a norm after the embedding: the bias
    is added to the positions instead. Positions of the class token are added to it where there are
    register tokens. At image sizes other than ``img_size`` timm resizes positions as
    ``ADDPViT(pos_antialias=True)`` does.

    Args:
        state_dict: Of ADDPViT without windows (which leave no trace in weights, so that this is for
            the caller to know), with ``norm_eps`` 1e-6. Left as it is.
        num_heads: Attention heads.
        img_size: Height and width in pixels; needed only where the positions form no square map.
        out_type: What ADDPViT gives and timm's model is to give: 'cls_token', 'avg_featmap' (the
            norm follows the mean), or 'featmap' or 'raw', for which timm gives all tokens. Defaults
            to 'cls_token'.

    Returns:
        State dict, and the arguments of ``timm.create_model(architecture_of(…), **kwargs)`` for it.

    Raises:
        ValueError: The weights have something that timm's VisionTransformer cannot express, named,
            or a key is unaccounted for.
    """
    if out_type not in _POOLING:
        raise ValueError(f'out_type must be one of {tuple(_POOLING)}, got {out_type!r}')
    _refuse_relative_positions(state_dict)
    norm = 'fc_norm' if out_type == 'avg_featmap' else 'norm'
    weights = translate(state_dict, (*_RULES, (rf'final_norm\.{WB}', rf'{norm}.\1')), (), 'ADDPViT')
    args = vit_args(state_dict, img_size)
    if out_type == 'cls_token' and not args['with_cls_token']:
        raise ValueError("the weights have no class token: take out_type='avg_featmap' or 'featmap'")
    _fold_patch_bias(weights)
    registers = weights['reg_token'].shape[1] if 'reg_token' in weights else 0
    if registers and 'cls_token' in weights and 'pos_embed' in weights:
        weights['cls_token'] = weights['cls_token'] + weights['pos_embed'][:, :1]
        weights['pos_embed'] = weights['pos_embed'][:, 1:].contiguous()
    kwargs = dict(
        img_size=list(args['img_size']),
        patch_size=args['patch_size'],
        in_chans=args['in_channels'],
        num_classes=0,
        global_pool=_POOLING[out_type],
        embed_dim=args['arch']['embed_dims'],
        depth=num_blocks(state_dict),
        num_heads=num_heads,
        mlp_ratio=args['arch']['mlp_ratio'],
        qkv_bias=args['qkv_bias'],
        class_token=args['with_cls_token'],
        dynamic_img_size=True,
    )
    optional = dict(
        init_values=args.get('layer_scale_init'),
        pre_norm=args['pre_norm'],
        reg_tokens=registers,
        no_embed_class=bool(registers),
        pos_embed='none' if 'pos_embed' not in weights else None,
        final_norm=None if args['final_norm'] else False,
    )
    kwargs.update({key: value for key, value in optional.items() if value or value is False and key == 'final_norm'})
    return weights, kwargs


def architecture_of(kwargs: Mapping) -> str:
    """Name under which ``timm.create_model`` builds a VisionTransformer from all these arguments."""
    return _ARCHITECTURES.get(kwargs['embed_dim'], 'vit_base_patch16_224')


def timm_config(
    kwargs: Mapping, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> dict:
    """``config.json`` beside ``model.safetensors``, as timm and the Hugging Face hub read it.

    Args:
        kwargs: From :func:`to_timm`.
        mean: Of the channels, for images in [0, 1]. Defaults to ImageNet's.
        std: The same. Defaults to ImageNet's.
    """
    input_size = [kwargs['in_chans'], *kwargs['img_size']]
    return dict(
        architecture=architecture_of(kwargs),
        num_classes=0,
        num_features=kwargs['embed_dim'],
        global_pool=kwargs['global_pool'],
        model_args=dict(kwargs),
        pretrained_cfg=dict(
            custom_load=False,
            input_size=input_size,
            fixed_input_size=False,
            interpolation='bicubic',
            crop_pct=1.0,
            crop_mode='center',
            mean=list(mean),
            std=list(std),
            num_classes=0,
            pool_size=None,
            first_conv='patch_embed.proj',
            classifier='head',
        ),
    )


def _refuse_relative_positions(state_dict: Mapping[str, Tensor]) -> None:
    for name, words in (
        ('rel_pos_h', 'decomposed relative positions'),
        ('rel_pos_bias_table', 'tables of relative positions'),
    ):
        if any(key.endswith(f'attn.{name}') for key in state_dict):
            raise ValueError(f"the weights have {words} (blocks.*.attn.{name}), which timm's VisionTransformer has not")


def _fold_patch_bias(weights: dict[str, Tensor]) -> None:
    if 'norm_pre.weight' not in weights:
        return
    bias = weights.pop('patch_embed.proj.bias')
    if 'pos_embed' in weights:
        prefix = int('cls_token' in weights)
        pos_embed = weights['pos_embed']
        weights['pos_embed'] = torch.cat([pos_embed[:, :prefix], pos_embed[:, prefix:] + bias], dim=1)
    elif bias.any():
        raise ValueError(
            'the patch projection has a bias and the tokens have no positions: with a norm after the '
            "embedding timm's VisionTransformer has no place for it"
        )
