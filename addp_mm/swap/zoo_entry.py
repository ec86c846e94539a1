# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the zoo knows about one backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from addp_mm.swap.recipes import VIT_B, Recipes

Colours = tuple[tuple[float, ...], tuple[float, ...]]

IMAGENET: Colours = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
HALF: Colours = ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))


@dataclass(frozen=True)
class ZooEntry:
    """One backbone.

    Args:
        name: Name in the zoo, ``timm:MODEL`` or the path of a checkpoint.
        backbone: Its config, without ``out_indices`` and ``out_type``.
        colours: Mean and standard deviation of red, green and blue, from 0 to 255.
        recipes: Settings of AdamW by task. None: the optimizer of the config stays, which trains
            ResNets already.
        large_images: More options of the backbone in detectors of large images. ``None``: it has no
            cheaper attention. Defaults to None.
    """

    name: str
    backbone: Mapping[str, Any]
    colours: Colours = IMAGENET
    recipes: Recipes | None = field(default_factory=lambda: VIT_B)
    large_images: Mapping[str, Any] | None = None


def windows_of(num_layers: int, has_table: bool) -> dict:
    """ViTDet's windows for an ADDPViT, with its relative positions.

    Args:
        num_layers: Number of blocks.
        has_table: Whether it has BEiT's relative positions, which are learned already.
    """
    windows = dict(window_size=14, global_blocks=quarters(num_layers), with_cls_token=False, with_cp=True)
    return windows if has_table else dict(windows, use_rel_pos=True)


def quarters(num_layers: int) -> tuple[int, ...]:
    """The last block of each quarter: (2, 5, 8, 11) of twelve."""
    return tuple((quarter * num_layers + 3) // 4 - 1 for quarter in (1, 2, 3, 4))
