# Copyright (c) addp_mm contributors. Apache-2.0.
"""Convert ADDPViT's weights to timm's VisionTransformer, which does not need OpenMMLab."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from addp_mm.imagenet import IMAGENET_MEAN, IMAGENET_STD
from addp_mm.layouts.key_rules import VIT_BLOCK, WB, Rule, translate
from addp_mm.layouts.layout import refuses_other_shapes
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
#: Output of ADDPViT, and timm's pooling that gives the same output.
_POOLING = {'cls_token': 'token', 'avg_featmap': 'avg', 'featmap': '', 'raw': ''}
#: Names in timm's registry, by width. The arguments set all sizes.
_ARCHITECTURES = {
    192: 'vit_tiny_patch16_224',
    384: 'vit_small_patch16_224',
    1024: 'vit_large_patch16_224',
    1280: 'vit_huge_patch14_224',
}


@refuses_other_shapes
def to_timm(
    state_dict: Mapping[str, Tensor],
    num_heads: int,
    img_size: tuple[int, int] | None = None,
    out_type: str = 'cls_token',
) -> tuple[dict[str, Tensor], dict]:
    """Convert ADDPViT's weights to those of timm's VisionTransformer.

    With a norm after the embedding, timm has no bias of the patch projection: the bias is added to
    the position embeddings. With register tokens, timm has no position embedding of the class
    token: it is added to the class token. At other image sizes timm resizes position embeddings as
    ``ADDPViT(pos_antialias=True)``.

    Args:
        state_dict: Weights of an ADDPViT without window attention and with ``norm_eps`` 1e-6.
            Neither can be inferred from the weights, so the caller must check them. It is not
            changed.
        num_heads: Attention heads.
        img_size: Height and width in pixels. Defaults to None: the positions form a square map.
        out_type: Output of ADDPViT that timm's model must give: 'cls_token', 'avg_featmap' (the
            norm follows the mean), or 'featmap' or 'raw', for which timm gives all tokens. Defaults
            to 'cls_token'.

    Returns:
        State dict, and the arguments of ``timm.create_model(architecture_of(…), **kwargs)`` for it.

    Raises:
        ValueError: timm's VisionTransformer has no equivalent of a weight, or a key is unknown. The
            message names it.
    """
    if out_type not in _POOLING:
        raise ValueError(f'out_type must be one of {tuple(_POOLING)}, got {out_type!r}')
    _refuse_relative_positions(state_dict)
    norm = 'fc_norm' if out_type == 'avg_featmap' else 'norm'
    weights = translate(state_dict, (*_RULES, (rf'final_norm\.{WB}', rf'{norm}.\1')), (), 'ADDPViT')
    args = vit_args(state_dict, img_size)
    if out_type == 'cls_token' and not args['with_cls_token']:
        raise ValueError("the weights have no class token: use out_type='avg_featmap' or 'featmap'")
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
    if 'layer_scale_init' in args:
        kwargs['init_values'] = args['layer_scale_init']
    if args['pre_norm']:
        kwargs['pre_norm'] = True
    if registers:
        kwargs.update(reg_tokens=registers, no_embed_class=True)
    if 'pos_embed' not in weights:
        kwargs['pos_embed'] = 'none'
    if not args['final_norm']:
        kwargs['final_norm'] = False
    return weights, kwargs


def architecture_of(kwargs: Mapping) -> str:
    """Name of a VisionTransformer in ``timm.create_model`` to build with these arguments."""
    return _ARCHITECTURES.get(kwargs['embed_dim'], 'vit_base_patch16_224')


def timm_config(
    kwargs: Mapping, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> dict:
    """Content of ``config.json``, which timm and the Hub read next to ``model.safetensors``.

    Args:
        kwargs: Arguments from :func:`to_timm`.
        mean: Mean of each channel, for images in [0, 1]. Defaults to ImageNet's.
        std: Standard deviation of each channel. Defaults to ImageNet's.
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
            raise ValueError(f"the weights have {words} (blocks.*.attn.{name}), and timm's VisionTransformer has none")


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
            'the patch projection has a bias, there is a norm after the embedding, and the tokens have no positions: '
            "timm's VisionTransformer has no such bias"
        )
