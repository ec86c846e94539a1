# Copyright (c) addp_mm contributors. Apache-2.0.
"""Forward passes of ViTs in the implementations of timm, mmpretrain and ADDP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from addp_mm.checkpoints.comparison import compare_weights
from addp_mm.conversion.originals.addp import encoder_features
from addp_mm.errors import first_few
from addp_mm.layouts.beit import BEIT
from addp_mm.layouts.key_rules import without_prefix
from addp_mm.layouts.layout import Layout
from addp_mm.layouts.mmpretrain_vit import MMPRETRAIN_VIT
from addp_mm.layouts.published import PUBLISHED_ENCODER
from addp_mm.layouts.timm_vit import without_chunks


def original_features(layout: Layout, state_dict: Mapping[str, Tensor], args: Mapping, images: Tensor) -> Tensor | None:
    """Features of a ViT in its original implementation.

    mmpretrain computes them for weights in its layout, this package's reference for those of ADDP,
    and timm for all others.

    Args:
        layout: Layout of the weights, of the backbone component.
        state_dict: Weights in that layout, bare.
        args: Arguments of ADDPViT for them, with the number of heads.
        images: (B, in_channels, H, W) of the weights' own size.

    Returns:
        All tokens after the final norm, (B, N, C). With ``out_type='avg_featmap'`` in ``args``, the
        averaged features after the norm, (B, C). None for mmpretrain's DeiT 3, which has a fault
        (see :mod:`addp_mm.layouts.mmpretrain_vit`).

    Raises:
        ValueError: The implementation needs weights that are missing.
    """
    if layout is PUBLISHED_ENCODER:
        return encoder_features(state_dict, images, args['arch']['num_heads'])
    with torch.no_grad():
        if layout is MMPRETRAIN_VIT:
            model = _mmpretrain(dict(state_dict), args)
            return None if model is None else model(images)[0]
        model = (_beit if layout is BEIT else _timm)(dict(state_dict), args)
        features = model.forward_features(images)
        return model.forward_head(features, pre_logits=True) if args.get('out_type') == 'avg_featmap' else features


def _common(args: Mapping) -> dict:
    arch = args['arch']
    pooled = args.get('out_type') == 'avg_featmap'
    return dict(
        img_size=args['img_size'],
        patch_size=args['patch_size'],
        in_chans=args['in_channels'],
        num_classes=0,
        embed_dim=arch['embed_dims'],
        depth=arch['num_layers'],
        num_heads=arch['num_heads'],
        mlp_ratio=arch['mlp_ratio'],
        init_values=args.get('layer_scale_init'),
        qkv_bias=args['qkv_bias'],
        global_pool='avg' if pooled else '',
    )


def _timm(weights: dict[str, Tensor], args: Mapping) -> Any:
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    weights = without_chunks(weights)  # timm has no chunks
    num_patches = args['img_size'][0] * args['img_size'][1] // args['patch_size'] ** 2
    kwargs = dict(_common(args), class_token=args['with_cls_token'], pre_norm=args['pre_norm'])
    if not args['final_norm']:
        kwargs['final_norm'] = False
    if 'dist_token' in weights:
        model: Any = VisionTransformerDistilled(**{**kwargs, 'global_pool': 'token'})
    else:
        dinov2 = 'register_tokens' in weights  # timm moves the class token's position itself
        model = VisionTransformer(
            **kwargs,
            reg_tokens=args.get('num_register_tokens', 0),
            no_embed_class=dinov2 or weights['pos_embed'].shape[1] == num_patches,
        )
    return _load(model, checkpoint_filter_fn(weights, model, adapt_layer_scale=True))


def _beit(weights: dict[str, Tensor], args: Mapping) -> Any:
    from timm.models.beit import Beit, checkpoint_filter_fn

    model = Beit(
        **_common(args),
        use_abs_pos_emb='pos_embed' in weights,
        use_rel_pos_bias='blocks.0.attn.relative_position_bias_table' in weights,
        use_shared_rel_pos_bias='rel_pos_bias.relative_position_bias_table' in weights,
    )
    own = model.state_dict()
    return _load(model, checkpoint_filter_fn({key: weights[key] for key in own if key in weights}, model))


def _mmpretrain(weights: dict[str, Tensor], args: Mapping) -> Any:
    from mmpretrain.models.backbones import BEiTViT, VisionTransformer

    weights = without_prefix(weights, 'backbone.') or weights
    arch, num_patches = args['arch'], args['img_size'][0] * args['img_size'][1] // args['patch_size'] ** 2
    kwargs = dict(
        arch=dict(
            embed_dims=arch['embed_dims'],
            num_layers=arch['num_layers'],
            num_heads=arch['num_heads'],
            feedforward_channels=len(weights['layers.0.ffn.layers.0.0.weight']),
        ),
        img_size=args['img_size'],
        patch_size=args['patch_size'],
        in_channels=args['in_channels'],
        out_type=args.get('out_type', 'raw'),
        final_norm='ln1.weight' in weights,
        layer_scale_init_value=args.get('layer_scale_init', 0.0),
    )
    if 'layers.0.attn.q_bias' in weights or args.get('use_rel_pos_table'):
        model = BEiTViT(
            **kwargs,
            use_abs_pos_emb='pos_embed' in weights,
            bias='qv_bias' if 'layers.0.attn.q_bias' in weights else args['qkv_bias'],
            use_rel_pos_bias='layers.0.attn.relative_position_bias_table' in weights,
            use_shared_rel_pos_bias='rel_pos_bias.relative_position_bias_table' in weights,
        )
    elif weights['pos_embed'].shape[1] == num_patches and args['with_cls_token']:
        return None
    else:
        model = VisionTransformer(
            **kwargs, qkv_bias=args['qkv_bias'], pre_norm=args['pre_norm'], with_cls_token=args['with_cls_token']
        )
    return _load(model, weights)


def _load(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    names = compare_weights(weights, model).missing
    missing = [name for name in names if not name.endswith('relative_position_index')]
    if missing:
        raise ValueError(
            f'the checkpoint has no {first_few(missing)}, which {type(model).__name__} of {type(model).__module__} uses'
        )
    model.load_state_dict(weights, strict=False)
    model.eval()  # a statement of its own: mmpretrain's eval() returns None
    return model
