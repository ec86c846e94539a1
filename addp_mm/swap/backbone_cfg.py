# Copyright (c) addp_mm contributors. Apache-2.0.
"""The config of the new backbone inside a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from addp_mm.swap.candidate import Candidate
from addp_mm.swap.feature_maps import build_without_memory
from addp_mm.swap.plan import SwapError
from addp_mm.swap.zoo import ZooEntry

# Detectors of smaller images train with global attention: 50 x 50 tokens.
LARGE_IMAGE = 800
# Backbones that store positions for one size.
WITH_SIZE = ('addp_mm.ADDPViT', 'addp_mm.VOLO')


def backbone_cfg(
    entry: ZooEntry, candidate: Candidate, task: str, stock: Mapping[str, Any], indices: Sequence[int], size: int
) -> dict[str, Any]:
    """Config of a backbone that returns maps.

    Args:
        entry: The backbone.
        candidate: Its maps.
        task: 'det', 'seg' or 'cls'.
        stock: Config of the backbone that it replaces.
        indices: Which of the maps it returns.
        size: Side of the usual images in pixels.
    """
    options: dict[str, Any] = {}
    if entry.backbone['type'] in WITH_SIZE:
        options['img_size'] = rounded_size(size, candidate)
    if entry.backbone['type'] == 'addp_mm.ADDPViT':
        options['out_type'] = 'featmap'
        if task == 'det' and entry.large_images and size >= LARGE_IMAGE:
            options.update(entry.large_images, final_norm=False)
        if task == 'seg':
            options.update(pad_to_patch=True)
        if len(indices) > 1:
            options.update(final_norm=False)
    if not candidate.is_plain or len(indices) > 1:
        options['out_indices'] = tuple(candidate.indices[i] for i in indices)
    return finished(entry, {**options, **kept(stock)}, task)


def kept(stock: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the replaced backbone that the new one gets too."""
    options = {}
    if stock.get('in_channels', 3) != 3:
        options['in_channels'] = stock['in_channels']
    if stock.get('with_cp'):
        options['with_cp'] = True
    return options


def rounded_size(size: int, candidate: Candidate) -> int:
    """The nearest multiple of two patches."""
    step = int(2 * candidate.maps.strides[-1])
    return max(1, round(size / step)) * step


def finished(entry: ZooEntry, options: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The backbone's config with drop path, its weights at the end."""
    backbone = {key: value for key, value in entry.backbone.items() if key not in ('init_cfg', 'pretrained')}
    backbone.update(options)
    weights = {key: value for key, value in entry.backbone.items() if key not in backbone}
    if backbone.get('in_channels', 3) != 3 and 'init_cfg' in weights:
        weights['init_cfg'] = dict(weights['init_cfg'], adapt_in_channels=True)
    if entry.recipes is not None and not backbone.get('frozen_stages'):
        with_drop_path = dict(backbone, drop_path_rate=entry.recipes[task].drop_path)
        if _can_be_built(with_drop_path):  # some models of timm have none
            backbone = with_drop_path
    return {**backbone, **weights}


def _can_be_built(backbone: Mapping[str, Any]) -> bool:
    try:
        build_without_memory(backbone)
    except SwapError:
        return False
    return True
