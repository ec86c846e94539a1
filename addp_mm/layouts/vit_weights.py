# Copyright (c) addp_mm contributors. Apache-2.0.
"""Convert the weights of plain vision transformers after their keys were renamed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from addp_mm.layouts.key_rules import WB, Rule, count, rename, require, translate
from addp_mm.layouts.layout import Layout

#: Attention heads of the standard architectures, by width and number of blocks.
STANDARD_HEADS = {(128, 6): 4, (192, 12): 3, (384, 12): 6, (768, 12): 12, (1024, 24): 16, (1280, 32): 16}

#: Heads of classifiers, which are left out. ``head.0`` and ``head.1`` are MAE's linear probe.
HEADS = (r'head\.(\d+\.)?\w+', rf'head_dist\.{WB}', rf'pre_logits\.fc\.{WB}')

#: Names of layer scale in timm and DINOv2, and in BEiT and DeiT III.
LAYER_SCALE: tuple[Rule, ...] = (
    (r'blocks\.(\d+\.ls[12]\.gamma)', r'blocks.\1'),
    (r'blocks\.(\d+)\.gamma_([12])', r'blocks.\1.ls\2.gamma'),
)

_SWIGLU = re.compile(r'.*\.(mlp|ffn)\.(w12|w1|w2|w3|fc1_g|fc1_x)\.')
#: Initial value of layer scale, as in DINOv2. The weights replace it.
_LAYER_SCALE_INIT = 1e-5
_CLASS_ENTRIES = 3


def vit_layout(
    name: str,
    matches: Callable[[Mapping[str, Tensor]], bool],
    rules: Sequence[Rule],
    unused: Sequence[str] = (),
    prepare: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
    class_position: bool = False,
) -> Layout:
    """Make a layout whose weights become those of :class:`~addp_mm.models.backbones.ADDPViT`.

    Args:
        name: As in :class:`~addp_mm.layouts.layout.Layout`.
        matches: As in :class:`~addp_mm.layouts.layout.Layout`.
        rules: New names of the keys. The norm of averaged features is named ``fc_norm.*``. It
            becomes the final norm if there is no other; ``build_args`` then sets
            ``out_type='avg_featmap'``.
        unused: Patterns for keys that are left out. Defaults to ().
        prepare: Function on the state dict that is applied first. Defaults to dict: a copy.
        class_position: As in :func:`complete_stem`. Defaults to False.
    """

    def convert(state_dict: Mapping[str, Tensor], grid: tuple[int, int] | None = None) -> dict[str, Tensor]:
        _refuse_swiglu(state_dict)
        weights = translate(prepare(state_dict), rules, unused, name)
        require(weights, ('patch_embed.projection.weight', 'blocks.0.attn.qkv.weight'), f'a whole {name}')
        _join_qkv_bias(weights)
        _spread_shared_table(weights)
        _choose_final_norm(weights)
        complete_stem(weights, grid, class_position)
        return weights

    def build_args(state_dict: Mapping[str, Tensor], grid: tuple[int, int] | None = None) -> dict:
        weights = convert(state_dict, grid)
        patch_size = weights['patch_embed.projection.weight'].shape[-1]
        args = vit_args(weights, (grid[0] * patch_size, grid[1] * patch_size) if grid else None)
        named = {renamed[0] for key in state_dict if (renamed := rename(key, rules))}
        if 'fc_norm.weight' in named and 'final_norm.weight' not in named:
            args['out_type'] = 'avg_featmap'
        return args

    return Layout(name, 'backbone', matches, convert, build_args)


def _refuse_swiglu(state_dict: Mapping[str, Tensor]) -> None:
    """Raise ValueError if the MLPs are gated, as in DINOv2's giant model."""
    gated = next((key for key in state_dict if _SWIGLU.match(key)), None)
    for key, value in state_dict.items():
        if key.endswith('mlp.fc1.weight'):
            second = state_dict.get(key.replace('fc1', 'fc2'), value.t())
            gated = gated or (key if second.ndim == 2 and len(value) != second.shape[1] else None)
    if gated:
        raise ValueError(
            f'{gated}: the MLPs are gated (SwiGLU, as in ViT-giant of DINOv2), and ADDPViT has no gated MLPs. '
            'Use the large model or a smaller one.'
        )


def _join_qkv_bias(weights: dict[str, Tensor]) -> None:
    """Join BEiT's biases of query and value to one of query, key (zero) and value, in place."""
    for key in [key for key in weights if key.endswith('.attn.q_bias')]:
        query, value = weights.pop(key), weights.pop(key.replace('q_bias', 'v_bias'))
        weights[key.replace('q_bias', 'qkv.bias')] = torch.cat([query, torch.zeros_like(query), value])


def _spread_shared_table(weights: dict[str, Tensor]) -> None:
    """Copy a shared table of relative positions into each block, in place."""
    shared = weights.pop('rel_pos_bias_table', None)
    if shared is None:
        return
    for i in range(num_blocks(weights)):
        key = f'blocks.{i}.attn.rel_pos_bias_table'
        weights[key] = weights[key] + shared if key in weights else shared.clone()


def _choose_final_norm(weights: dict[str, Tensor]) -> None:
    """Make the norm of averaged features the final norm if there is no other, in place."""
    for end in ('weight', 'bias'):
        pooled = weights.pop(f'fc_norm.{end}', None)
        if pooled is not None:
            weights.setdefault(f'final_norm.{end}', pooled)


def complete_stem(weights: dict[str, Tensor], grid: tuple[int, int] | None, class_position: bool = False) -> None:
    """Convert patch bias, positions and extra tokens to the form of ADDPViT, in place.

    A missing patch bias (CLIP) and a missing position of the class token (DeiT III) become zero.
    DeiT's distillation token becomes a register token. Positions of register tokens are added to
    the tokens.

    Args:
        weights: Named as ADDPViT's.
        grid: (height, width) of the positions in patches. It is needed where shapes are ambiguous:
            196 positions are 14 x 14 patches, or 13 x 15 patches and a class token. With None, a
            square map is assumed if one is possible.
        class_position: Whether the layout always has a position for the class token and none for
            register tokens. Defaults to False.

    Raises:
        ValueError: The positions do not fit ``grid``, or ``grid`` is needed.
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
    extra = cls if class_position else _num_extra_positions(pos_embed.shape[1], cls, registers.shape[1], grid)
    if extra < cls:
        weights['pos_embed'] = torch.cat([torch.zeros_like(weights['cls_token']), pos_embed], dim=1)
    elif extra > cls:
        weights['register_tokens'] = registers + pos_embed[:, cls:extra]
        weights['pos_embed'] = torch.cat([pos_embed[:, :cls], pos_embed[:, extra:]], dim=1)


def _num_extra_positions(rows: int, cls: int, num_registers: int, grid: tuple[int, int] | None) -> int:
    """Number of positions before those of the patches."""
    choices = tuple(dict.fromkeys((0, cls, cls + num_registers)))
    fitting = [extra for extra in choices if (rows - extra == math.prod(grid) if grid else _is_square(rows - extra))]
    if fitting:
        return fitting[0]
    if grid:
        raise ValueError(f'the {rows} positions do not fit {grid[0]} x {grid[1]} patches')
    if num_registers:
        raise ValueError(
            f'{rows} positions do not form a square map, so it is unknown whether the class token and the '
            f'{num_registers} registers have positions. Give the grid: pos_grid=(height, width) of '
            'addp_mm.Pretrained in patches, or --img-size HEIGHT WIDTH of tools/model_converters/vit.py in pixels'
        )
    return cls


def vit_args(weights: Mapping[str, Tensor], img_size: tuple[int, int] | None = None) -> dict:
    """Infer the arguments of :class:`~addp_mm.models.backbones.ADDPViT` from its weights.

    Args:
        weights: State dict of ADDPViT.
        img_size: Height and width in pixels. Defaults to None: the positions form a square map.

    Returns:
        The arguments. ``arch`` lacks ``num_heads``, see :func:`num_heads_of`. Window attention
        cannot be inferred from weights and is not included.

    Raises:
        ValueError: A tensor is missing or has a shape that ADDPViT cannot have, or ``img_size`` is
            needed or does not fit.
    """
    for name in ('patch_embed.projection.weight', 'blocks.0.mlp.fc1.weight', 'blocks.0.attn.qkv.weight'):
        if name not in weights:
            raise ValueError(f'not a whole ViT: {name} is missing')
    projection = weights['patch_embed.projection.weight']
    if projection.ndim != 4 or projection.shape[2] != projection.shape[3]:
        raise ValueError(
            f'patch_embed.projection.weight {tuple(projection.shape)} is not a projection of square patches'
        )
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
    """Number of attention heads from relative positions or the standard architecture; else None."""
    table = weights.get('blocks.0.attn.rel_pos_bias_table')
    if table is not None:
        return table.shape[1]
    embed_dims = len(weights['patch_embed.projection.weight'])
    if 'blocks.0.attn.rel_pos_h' in weights:
        return embed_dims // weights['blocks.0.attn.rel_pos_h'].shape[1]
    return STANDARD_HEADS.get((embed_dims, num_blocks(weights)))


def num_blocks(weights: Mapping[str, Tensor]) -> int:
    """Number of transformer blocks in a state dict of ADDPViT."""
    return count(weights, r'blocks\.(\d+)\.')


def _image_size(weights: Mapping[str, Tensor], patch_size: int, img_size: tuple[int, int] | None) -> tuple[int, int]:
    cls = int('cls_token' in weights)
    if 'pos_embed' in weights:
        positions = weights['pos_embed'].shape[1] - cls
    elif 'blocks.0.attn.rel_pos_bias_table' in weights:
        offsets = len(weights['blocks.0.attn.rel_pos_bias_table']) - _CLASS_ENTRIES * cls
        if img_size is None:
            h = w = (math.isqrt(offsets) + 1) // 2
        else:
            h, w = img_size[0] // patch_size, img_size[1] // patch_size
        positions = h * w if (2 * h - 1) * (2 * w - 1) == offsets else 0
    elif img_size is None:
        raise ValueError('the weights have no positions, so the image size is unknown: give it (--img-size)')
    else:
        return img_size
    if img_size is None:
        if not _is_square(positions):
            raise ValueError('the positions do not form a square map: give the image size (--img-size HEIGHT WIDTH)')
        side = math.isqrt(positions) * patch_size
        return side, side
    if any(side % patch_size for side in img_size) or math.prod(img_size) != positions * patch_size**2:
        raise ValueError(
            f'img_size {img_size[0]} x {img_size[1]} does not fit the positions in patches of {patch_size} pixels'
        )
    return img_size


def _ratio(embed_dims: int, hidden_dims: int) -> float:
    """mlp_ratio with int(embed_dims * mlp_ratio) == hidden_dims despite rounding."""
    ratio = hidden_dims / embed_dims
    return ratio if int(embed_dims * ratio) == hidden_dims else math.nextafter(ratio, math.inf)


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number
