# Copyright (c) addp_mm contributors. Apache-2.0.
"""A checkpoint of an ADDPViT as a backbone: its arguments are inferred from its weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.checkpoints.state_dict import find_state_dict
from addp_mm.layouts import find_layout
from addp_mm.layouts.key_rules import without_prefix
from addp_mm.layouts.vit_weights import num_heads_of, vit_args
from addp_mm.swap.plan import SwapError
from addp_mm.swap.recipes import VIT_B, VIT_L
from addp_mm.swap.zoo_entry import ZooEntry, windows_of

# What the task decides.
_OF_TASK = ('img_size', 'out_type', 'final_norm', 'with_cls_token', 'use_rel_pos')
_PATCH_EMBED = 'patch_embed.projection.weight'


def checkpoint_entry(path: str) -> ZooEntry:
    """Describe the ViT in a checkpoint of any layout that :class:`addp_mm.Pretrained` reads.

    Args:
        path: Path or address. The file is read.

    Raises:
        SwapError: It holds no ViT, or one whose number of attention heads is not standard.
        CheckpointError: It cannot be read.
    """
    weights, prefix = _vit_weights(find_state_dict(load_checkpoint_file(path), path), path)
    args = vit_args(weights)
    heads = num_heads_of(weights)
    if heads is None:
        raise SwapError(
            f'{path}: the number of attention heads of a ViT with {args["arch"]} cannot be inferred. Write the config '
            'by hand and give num_heads (docs/swap.md)'
        )
    arch = dict(args.pop('arch'), num_heads=heads)
    options = {key: value for key, value in args.items() if key not in _OF_TASK}
    init_cfg = dict(type='addp_mm.Pretrained', checkpoint=path)
    if prefix:
        init_cfg['prefix'] = prefix
    backbone = dict(type='addp_mm.ADDPViT', arch=arch, **options, init_cfg=init_cfg)
    is_large = arch['num_layers'] >= 24
    windows = (
        None if options.get('num_register_tokens') else windows_of(arch['num_layers'], 'use_rel_pos_table' in options)
    )
    return ZooEntry(path, backbone, recipes=VIT_L if is_large else VIT_B, large_images=windows)


def _vit_weights(state_dict: Mapping[str, Tensor], path: str) -> tuple[dict[str, Tensor], str]:
    """Weights under ADDPViT's names, and the prefix of those that already had its names."""
    for prefix in ('backbone.', ''):
        own = without_prefix(state_dict, prefix)
        if _PATCH_EMBED in own and find_layout(own, {'backbone'}) is None:
            return own, prefix
    layout = find_layout(state_dict, {'model', 'backbone'})
    if layout is None:
        raise SwapError(
            f'{path} holds no weights of a ViT that addp_mm.ADDPViT can take. Give a checkpoint of an ADDPViT, or of '
            'a layout in docs/checkpoints.md'
        )
    weights = layout.convert(state_dict)
    return (without_prefix(weights, 'backbone.') if layout.component == 'model' else weights), ''
