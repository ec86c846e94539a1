# Copyright (c) addp_mm contributors. Apache-2.0.
"""VOLO (https://github.com/sail-sg/volo, ``.pth.tar``) and timm's VOLO, which use the same names.

They become the weights of a classifier of mmpretrain with :class:`addp_mm.VOLO` as ``backbone`` and
:class:`addp_mm.VOLOHead` as ``head``. A file without heads gives the backbone only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from addp_mm.layouts.key_rules import WB, Rule, count, require, translate
from addp_mm.layouts.layout import Layout, refuses_other_shapes

_BLOCK = rf'\d+\.(?:norm[12]|attn\.(?:v|attn|qkv|q|kv|proj)|mlp\.fc[12])\.{WB}'
_STEM = rf'conv\.\d\.(?:{WB}|running_mean|running_var|num_batches_tracked)|proj\.{WB}'
_NETWORK = (
    rf'patch_embed\.(?:{_STEM})',
    rf'network\.\d\.{_BLOCK}',
    rf'network\.1\.proj\.{WB}',
    rf'post_network\.{_BLOCK}',
    rf'norm\.{WB}',
    r'pos_embed|cls_token',
)
_RULES: tuple[Rule, ...] = (
    *((f'({pattern})', r'backbone.timm_model.\1') for pattern in _NETWORK),
    (rf'head\.{WB}', r'head.fc.\1'),
    (rf'aux_head\.{WB}', r'head.aux_fc.\1'),
)
_BACK: tuple[Rule, ...] = (
    (r'backbone\.timm_model\.(.+)', r'\1'),
    (rf'head\.fc\.{WB}', r'head.\1'),
    (rf'head\.aux_fc\.{WB}', r'aux_head.\1'),
)
#: Names of architectures, by the blocks of each stage and the width of outlookers.
_ARCHS: dict[tuple[tuple[int, ...], int], str] = {
    ((4, 4, 8, 2), 192): 'd1',
    ((6, 4, 10, 4), 256): 'd2',
    ((8, 8, 16, 4), 256): 'd3',
    ((8, 8, 16, 4), 384): 'd4',
    ((12, 12, 20, 4), 384): 'd5',
}
#: Entries of outlook attention for each head: a 3 x 3 window for each of 3 x 3 values.
_OUTLOOK_WEIGHTS = 81


@refuses_other_shapes
def to_published(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the weights of a classifier with a VOLO to the names of VOLO and timm.

    Args:
        state_dict: Weights of mmpretrain's ImageClassifier. The state of a data preprocessor is
            left out. It is not changed.

    Raises:
        ValueError: A key is unknown, or weights of the network are missing.
    """
    weights = translate(state_dict, _BACK, (r'data_preprocessor\..+',), 'a classifier with VOLO')
    require(weights, ('patch_embed.conv.0.weight', 'network.0.0.attn.attn.weight'), 'a classifier with addp_mm.VOLO')
    return _with_counters(weights)


@refuses_other_shapes
def volo_args(state_dict: Mapping[str, Tensor]) -> dict:
    """Arguments of :class:`addp_mm.VOLO`, inferred from published weights.

    Args:
        state_dict: Weights in the published layout.

    Returns:
        ``arch``, ``img_size`` and ``in_channels``. ``arch`` is a name, or else a dict without the
        attention heads of the transformers, which cannot be inferred.
    """
    stem, patches = state_dict['patch_embed.conv.0.weight'], state_dict['patch_embed.proj.weight']
    patch_size = 2 * patches.shape[-1]
    layers = tuple(
        number for i in (0, 2, 3, 4) if (number := count(state_dict, rf'network\.{i}\.(\d+)\.attn\.proj\.weight'))
    )
    dims = (len(patches), len(state_dict['network.1.proj.weight']))
    name = _ARCHS.get((layers, dims[0]))
    arch = name if name else _settings(state_dict, layers, dims, len(stem), patch_size)
    sides = [2 * patch_size * side for side in state_dict['pos_embed'].shape[1:3]]
    return dict(arch=arch, img_size=sides[0] if sides[0] == sides[1] else tuple(sides), in_channels=stem.shape[1])


def _settings(
    state_dict: Mapping[str, Tensor], layers: tuple[int, ...], dims: tuple[int, int], stem: int, patch_size: int
) -> dict:
    ratios = [len(state_dict[f'network.{i}.0.mlp.fc1.weight']) / dim for i, dim in zip((0, 2), dims, strict=True)]
    return dict(
        layers=layers,
        embed_dims=dims,
        num_heads=(len(state_dict['network.0.0.attn.attn.weight']) // _OUTLOOK_WEIGHTS, None),
        mlp_ratio=tuple(ratios),
        stem_channels=stem,
        patch_size=patch_size,
    )


def _convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    weights = translate(state_dict, _RULES, (), 'VOLO')
    require(weights, ('backbone.timm_model.pos_embed', 'backbone.timm_model.network.1.proj.weight'), 'a whole VOLO')
    return _with_counters(weights)


def _with_counters(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the integers of batch norms, which ``translate`` makes float32."""
    return {key: value.long() if key.endswith('num_batches_tracked') else value for key, value in weights.items()}


def _build_args(state_dict: Mapping[str, Tensor]) -> dict:
    args: dict = dict(backbone=volo_args(state_dict))
    if 'head.weight' in state_dict:
        classes, channels = state_dict['head.weight'].shape
        args['head'] = dict(num_classes=classes, in_channels=channels)
    return args


def _matches(state_dict: Mapping[str, Tensor]) -> bool:
    return 'patch_embed.conv.0.weight' in state_dict and any(
        re.fullmatch(r'network\.0\.\d+\.attn\.v\.weight', key) for key in state_dict
    )


VOLO = Layout('VOLO', 'model', _matches, _convert, _build_args)
