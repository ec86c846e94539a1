# Copyright (c) addp_mm contributors. Apache-2.0.
"""Architectures of ADDPViT, and checks of its options."""

from collections.abc import Sequence

from addp_mm.models.layers import OptionError

ARCHS: dict[str, dict] = {
    'nano': dict(embed_dims=128, num_layers=6, num_heads=4),
    'tiny': dict(embed_dims=192, num_layers=12, num_heads=3),
    'small': dict(embed_dims=384, num_layers=12, num_heads=6),
    'base': dict(embed_dims=768, num_layers=12, num_heads=12),
    'large': dict(embed_dims=1024, num_layers=24, num_heads=16),
    'huge': dict(embed_dims=1280, num_layers=32, num_heads=16),
}


def arch_settings(arch: str | dict) -> dict:
    """Settings of an architecture by name, or a dict of them completed and checked."""
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise OptionError(f'arch must be one of {tuple(ARCHS)} or a dict, got {arch!r}')
        arch = ARCHS[arch]
    needed, known = {'embed_dims', 'num_layers', 'num_heads'}, {'embed_dims', 'num_layers', 'num_heads', 'mlp_ratio'}
    if not needed <= set(arch) <= known:
        raise OptionError(f'an arch dict needs {sorted(needed)} and may have mlp_ratio; got {sorted(arch)}')
    return {'mlp_ratio': 4.0, **arch}


def ascending_indices(indices: int | Sequence[int], num_layers: int, name: str) -> tuple[int, ...]:
    """Block numbers counted from the start, checked."""
    given = (indices,) if isinstance(indices, int) else tuple(indices)
    if any(not -num_layers <= i < num_layers for i in given):
        raise OptionError(f'{name} {given} must name blocks of {num_layers}: {-num_layers} to {num_layers - 1}')
    counted = tuple(i % num_layers for i in given)
    if list(counted) != sorted(set(counted)) or (name == 'out_indices' and not counted):
        raise OptionError(
            f'{name} must ascend without repetition'
            + (' and name at least one block' if name == 'out_indices' else '')
            + f', got {given}'
        )
    return counted


def grid_of(img_size: int | tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Height and width of an image in patches."""
    h, w = (img_size, img_size) if isinstance(img_size, int) else img_size
    if h % patch_size or w % patch_size:
        raise OptionError(f'img_size {h} x {w} must be multiples of patch_size {patch_size}')
    return h // patch_size, w // patch_size
