# Copyright (c) addp_mm contributors. Apache-2.0.
"""Architectures of VOLO."""

from collections.abc import Mapping
from typing import Any

from timm.models import volo
from torch import nn

from addp_mm.errors import suggest
from addp_mm.models.layers import OptionError

# layers: blocks of the outlooker stage and of the three transformer stages. Pairs: outlookers,
# transformers.
ARCHS: dict[str, dict] = {
    'nano': dict(layers=(2, 1, 2, 1), embed_dims=(64, 128), num_heads=(2, 4), stem_channels=32, patch_size=4),
    'd1': dict(layers=(4, 4, 8, 2), embed_dims=(192, 384), num_heads=(6, 12)),
    'd2': dict(layers=(6, 4, 10, 4), embed_dims=(256, 512), num_heads=(8, 16)),
    'd3': dict(layers=(8, 8, 16, 4), embed_dims=(256, 512), num_heads=(8, 16)),
    'd4': dict(layers=(8, 8, 16, 4), embed_dims=(384, 768), num_heads=(12, 16)),
    'd5': dict(layers=(12, 12, 20, 4), embed_dims=(384, 768), num_heads=(12, 16), stem_channels=128, mlp_ratio=4),
}
_DEFAULTS = dict(mlp_ratio=3, stem_channels=64, patch_size=8)
_NEEDED = {'layers', 'embed_dims', 'num_heads'}


def arch_settings(arch: str | Mapping) -> dict[str, Any]:
    """Settings of an architecture, completed and checked.

    Args:
        arch: A name, or a mapping as in :class:`~addp_mm.models.backbones.VOLO`.

    Raises:
        OptionError: The name is unknown, or keys or values are wrong.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            hint = suggest(arch.lower().removeprefix('volo').lstrip('_-'), ARCHS, cutoff=0.4)
            raise OptionError(f'arch of VOLO must be one of {tuple(ARCHS)} or a dict, got {arch!r}{hint}')
        arch = ARCHS[arch]
    if not _NEEDED <= set(arch) <= _NEEDED | set(_DEFAULTS):
        raise OptionError(
            f'an arch dict of VOLO needs {sorted(_NEEDED)} and may have {sorted(_DEFAULTS)}; got {sorted(arch)}'
        )
    settings = {**_DEFAULTS, **arch}
    ratio = settings['mlp_ratio']
    settings['mlp_ratio'] = tuple(ratio) if isinstance(ratio, (tuple, list)) else (ratio, ratio)
    for name, number in (('layers', 4), ('embed_dims', 2), ('num_heads', 2), ('mlp_ratio', 2)):
        values = settings[name] = tuple(settings[name])
        if len(values) != number or not all(isinstance(one, (int, float)) and one > 0 for one in values):
            raise OptionError(f'{name} of an arch dict of VOLO must be {number} positive numbers, got {values}')
    for dims, heads in zip(settings['embed_dims'], settings['num_heads'], strict=True):
        if dims % heads:
            raise OptionError(f'embed_dims {dims} of VOLO cannot be divided by num_heads {heads}')
    if settings['patch_size'] not in (4, 8, 16):
        raise OptionError(f'patch_size of VOLO must be 4, 8 or 16, got {settings["patch_size"]}')
    return settings


def build_volo(arch: str | Mapping, img_size: tuple[int, int], in_channels: int, drop_path_rate: float) -> nn.Module:
    """Build timm's VOLO without heads.

    Args:
        arch: See :func:`arch_settings`.
        img_size: Height and width in pixels for which positions are stored.
        in_channels: Channels of the images.
        drop_path_rate: Stochastic depth of the last transformer. It grows linearly from the first
            outlooker; outlookers have none, as published.

    Raises:
        OptionError: The architecture is wrong, or the size is not a multiple of two patches.
    """
    settings = arch_settings(arch)
    token = 2 * settings['patch_size']
    if any(side < token or side % token for side in img_size):
        raise OptionError(
            f'img_size {img_size[0]} x {img_size[1]} of VOLO must be multiples of {token} pixels, the size of a token'
        )
    in_every_stage: dict[str, Any] = {
        name: (settings[name][0], *(settings[name][1],) * 3) for name in ('embed_dims', 'num_heads', 'mlp_ratio')
    }
    return volo.VOLO(
        layers=settings['layers'],
        img_size=img_size,  # type: ignore[arg-type]  # timm takes pairs
        in_chans=in_channels,
        num_classes=0,
        patch_size=settings['patch_size'],
        stem_hidden_dim=settings['stem_channels'],
        drop_path_rate=drop_path_rate,
        **in_every_stage,
    )
