# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the layouts of plain vision transformers share: everything after the renaming of their keys."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from addp_mm.layouts.key_rules import WB, Rule, count, matches_any
from addp_mm.layouts.layout import Layout

#: Heads of the standard architectures, by width and number of blocks.
STANDARD_HEADS = {(128, 6): 4, (192, 12): 3, (384, 12): 6, (768, 12): 12, (1024, 24): 16, (1280, 32): 16}

#: What a classifier has beside its backbone; ``head.0`` and ``head.1`` are MAE's linear probe.
HEADS = (r'head\.(\d+\.)?\w+', rf'head_dist\.{WB}', rf'pre_logits\.fc\.{WB}')

#: Layer scale as timm and DINOv2 name it, and as BEiT and DeiT III do.
LAYER_SCALE: tuple[Rule, ...] = (
    (r'blocks\.(\d+\.ls[12]\.gamma)', r'blocks.\1'),
    (r'blocks\.(\d+)\.gamma_([12])', r'blocks.\1.ls\2.gamma'),
)

_SWIGLU = re.compile(r'.*\.(mlp|ffn)\.(w12|w1|w2|w3|fc1_g|fc1_x)\.')
#: Start of the factors that a backbone with layer scale gets before the weights replace it
# (DINOv2's).
_LAYER_SCALE_INIT = 1e-5
_CLASS_ENTRIES = 3


def vit_layout(
    name: str,
    matches: Callable[[Mapping], bool],
    convert: Callable[..., dict],
    norm: str = r'norm\.weight',
    pooled_norm: str = r'fc_norm\.weight',
) -> Layout:
    """A layout whose weights become ADDPViT's.

    Args:
        name: As :class:`~addp_mm.layouts.layout.Layout` has it, like the next two.
        matches: The same.
        convert: The same.
        norm: Pattern for the final norm's weight in this layout.
        pooled_norm: Pattern for the weight of the norm of averaged features; where it alone is
            there, the arguments ask for these features.
    """

    def build_args(state_dict: Mapping[str, Tensor], grid: tuple[int, int] | None = None) -> dict:
        weights = convert(state_dict, grid=grid)
        patch_size = weights['patch_embed.projection.weight'].shape[-1]
        args = vit_args(weights, grid and tuple(side * patch_size for side in grid))
        pooled = any(matches_any(key, (pooled_norm,)) for key in state_dict)
        if pooled and not any(matches_any(key, (norm,)) for key in state_dict):
            args['out_type'] = 'avg_featmap'
        return args

    return Layout(name, 'ADDPViT', matches, convert, build_args)


def refuse_swiglu(state_dict: Mapping[str, Tensor]) -> None:
    """Raises ValueError if the MLPs are gated, as in DINOv2's giant model."""
    gated = next((key for key in state_dict if _SWIGLU.match(key)), None)
    for key, value in state_dict.items():
        if key.endswith('mlp.fc1.weight'):
            second = state_dict.get(key.replace('fc1', 'fc2'), value.t())
            gated = gated or (key if second.ndim == 2 and len(value) != second.shape[1] else None)
    if gated:
        raise ValueError(
            f'{gated}: the MLPs are gated (SwiGLU, as in ViT-giant of DINOv2), which ADDPViT has not. '
            'Take the large model or a smaller one.'
        )


def join_qkv_bias(weights: dict[str, Tensor]) -> None:
    """BEiT's biases of query and value become one of query, key (zero) and value. In place."""
    for key in [key for key in weights if key.endswith('.attn.q_bias')]:
        query, value = weights.pop(key), weights.pop(key.replace('q_bias', 'v_bias'))
        weights[key.replace('q_bias', 'qkv.bias')] = torch.cat([query, torch.zeros_like(query), value])


def spread_shared_table(weights: dict[str, Tensor]) -> None:
    """One table of relative positions for all blocks becomes one for each, as BEiT's fine-tuning does. In place."""
    shared = weights.pop('rel_pos_bias_table', None)
    if shared is None:
        return
    for i in range(num_blocks(weights)):
        key = f'blocks.{i}.attn.rel_pos_bias_table'
        weights[key] = weights[key] + shared if key in weights else shared.clone()


def choose_final_norm(weights: dict[str, Tensor]) -> None:
    """The norm of a classifier's averaged features is the final norm where there is no other. In place."""
    for end in ('weight', 'bias'):
        pooled = weights.pop(f'fc_norm.{end}', None)
        if pooled is not None:
            weights.setdefault(f'final_norm.{end}', pooled)


def complete_stem(weights: dict[str, Tensor], grid: tuple[int, int] | None, class_position: bool = False) -> None:
    """Make the patch bias, the positions and the tokens before the patches ADDPViT's. In place.

    A missing bias (CLIP) and a missing position of the class token (DeiT III) are zero. DeiT's
    distillation token becomes a register token. Positions that register tokens have are added to
    them.

    Args:
        weights: Named as ADDPViT's.
        grid: (height, width) of the positions in patches, which decides what tensors leave open:
            196 positions are 14 x 14 patches, or 13 x 15 and a class token. Without it the map is
            taken to be square where one is.
        class_position: Whether the layout always has a position for the class token, and none for
            registers.

    Raises:
        ValueError: The positions fit no such grid, or could be split in several ways and ``grid``
            is needed.
    """
    projection = weights['patch_embed.projection.weight']
    weights.setdefault('patch_embed.projection.bias', projection.new_zeros(len(projection)))
    distillation = weights.pop('dist_token', None)
    if distillation is not None:
        weights['register_tokens'] = distillation
    pos_embed = weights.get('pos_embed')
    if pos_embed is None:
        return
    cls = int('cls_token' in weights)
    registers = weights.get('register_tokens', pos_embed[:, :0])
    own = cls if class_position else _tokens_with_position(pos_embed.shape[1], cls, registers.shape[1], grid)
    if own < cls:
        weights['pos_embed'] = torch.cat([torch.zeros_like(weights['cls_token']), pos_embed], dim=1)
    elif own > cls:
        weights['register_tokens'] = registers + pos_embed[:, cls:own]
        weights['pos_embed'] = torch.cat([pos_embed[:, :cls], pos_embed[:, own:]], dim=1)


def _tokens_with_position(rows: int, cls: int, num_registers: int, grid: tuple[int, int] | None) -> int:
    """How many of the rows of a table of positions belong to tokens before the patches: none, the class token, all."""
    ways = tuple(dict.fromkeys((0, cls, cls + num_registers)))
    fitting = [way for way in ways if (rows - way == math.prod(grid) if grid else _is_square(rows - way))]
    if fitting:
        return fitting[0]
    if grid:
        raise ValueError(f'the {rows} positions are not those of {grid[0]} x {grid[1]} patches')
    if num_registers:
        raise ValueError(
            f'of {rows} positions, which hold no square map, tensors do not tell whether the class token '
            f'and the {num_registers} registers have some. Say the grid: pos_grid=(height, width) of '
            'addp_mm.Pretrained in patches, --img-size HEIGHT WIDTH of tools/model_converters/vit.py'
        )
    return cls


def vit_args(weights: Mapping[str, Tensor], img_size: tuple[int, int] | None = None) -> dict:
    """Arguments of :class:`~addp_mm.models.backbones.ADDPViT` for its weights, but for the number of heads.

    Args:
        weights: State dict of ADDPViT.
        img_size: Height and width in pixels; needed only where the positions form no square map.

    Returns:
        ``arch`` lacks ``num_heads``, see :func:`num_heads_of`. Windows leave no trace in weights and are not told.

    Raises:
        ValueError: A tensor is missing or has no shape that ADDPViT has, or ``img_size`` is needed
            or does not fit.
    """
    for name in ('patch_embed.projection.weight', 'blocks.0.mlp.fc1.weight', 'blocks.0.attn.qkv.weight'):
        if name not in weights:
            raise ValueError(f'no whole ViT: {name} is missing')
    projection = weights['patch_embed.projection.weight']
    if projection.ndim != 4 or projection.shape[2] != projection.shape[3]:
        raise ValueError(f'patch_embed.projection.weight {tuple(projection.shape)} is no projection of square patches')
    embed_dims, in_channels, patch_size = projection.shape[:3]
    args = dict(
        arch=dict(
            embed_dims=embed_dims,
            num_layers=num_blocks(weights),
            mlp_ratio=_ratio(embed_dims, len(weights['blocks.0.mlp.fc1.weight'])),
        ),
        img_size=_image_size(weights, patch_size, img_size),
        patch_size=patch_size,
        in_channels=in_channels,
        with_cls_token='cls_token' in weights,
        pre_norm='pre_norm.weight' in weights,
        final_norm='final_norm.weight' in weights,
        qkv_bias='blocks.0.attn.qkv.bias' in weights,
    )
    if not args['with_cls_token']:
        args['out_type'] = 'featmap'
    if 'register_tokens' in weights:
        args['num_register_tokens'] = weights['register_tokens'].shape[1]
    if 'pos_embed' not in weights:
        args['use_abs_pos'] = False
    if 'blocks.0.attn.rel_pos_bias_table' in weights:
        args['use_rel_pos_table'] = True
    if 'blocks.0.attn.rel_pos_h' in weights:
        args['use_rel_pos'] = True
    if 'blocks.0.ls1.gamma' in weights:
        args['layer_scale_init'] = _LAYER_SCALE_INIT
    return args


def num_heads_of(weights: Mapping[str, Tensor]) -> int | None:
    """Number of heads that relative positions tell or the standard architectures have; None where neither does."""
    table = weights.get('blocks.0.attn.rel_pos_bias_table')
    if table is not None:
        return table.shape[1]
    embed_dims = len(weights['patch_embed.projection.weight'])
    if 'blocks.0.attn.rel_pos_h' in weights:
        return embed_dims // weights['blocks.0.attn.rel_pos_h'].shape[1]
    return STANDARD_HEADS.get((embed_dims, num_blocks(weights)))


def num_blocks(weights: Mapping[str, Tensor]) -> int:
    """Number of transformer blocks in a state dict."""
    return count(weights, r'blocks\.(\d+)\.')


def _image_size(weights: Mapping[str, Tensor], patch_size: int, img_size: tuple[int, int] | None) -> tuple[int, int]:
    prefix = int('cls_token' in weights)
    if 'pos_embed' in weights:
        places = weights['pos_embed'].shape[1] - prefix
    elif 'blocks.0.attn.rel_pos_bias_table' in weights:
        offsets = len(weights['blocks.0.attn.rel_pos_bias_table']) - _CLASS_ENTRIES * prefix
        if img_size is None:
            side = (math.isqrt(offsets) + 1) // 2
            places = side * side if (2 * side - 1) ** 2 == offsets else 0
        else:
            h, w = (side // patch_size for side in img_size)
            places = h * w if (2 * h - 1) * (2 * w - 1) == offsets else 0
    elif img_size is None:
        raise ValueError('there are no positions that tell the image size: give it (--img-size HEIGHT WIDTH)')
    else:
        return tuple(img_size)
    if img_size is None:
        if not _is_square(places):
            raise ValueError('the positions form no square map: give the image size (--img-size HEIGHT WIDTH)')
        return (math.isqrt(places) * patch_size,) * 2
    if any(side % patch_size for side in img_size) or math.prod(img_size) != places * patch_size**2:
        raise ValueError(
            f'img_size {img_size[0]} x {img_size[1]} does not fit the positions in patches of {patch_size}'
        )
    return tuple(img_size)


def _ratio(embed_dims: int, hidden_dims: int) -> float:
    """mlp_ratio with int(embed_dims * mlp_ratio) == hidden_dims, also where the division is not exact."""
    ratio = hidden_dims / embed_dims
    return ratio if int(embed_dims * ratio) == hidden_dims else math.nextafter(ratio, math.inf)


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number
