# Copyright (c) addp_mm contributors. Apache-2.0.
"""Any model of timm as a backbone of the zoo."""

from __future__ import annotations

from collections.abc import Sequence

import timm

from addp_mm.models.backbones.timm_model import check_name
from addp_mm.models.layers import OptionError
from addp_mm.swap.plan import SwapError
from addp_mm.swap.recipes import CONVNEXT, SWIN, VIT_B, VIT_L, VOLO, Recipes
from addp_mm.swap.zoo_entry import IMAGENET, ZooEntry

# Beginnings of timm's names, in the order in which they are tried. Other transformers are trained
# as Swin is.
_RECIPES: tuple[tuple[str, Recipes | None], ...] = (
    ('vit_large', VIT_L),
    ('vit_huge', VIT_L),
    ('eva02_large', VIT_L),
    ('beit_large', VIT_L),
    ('beitv2_large', VIT_L),
    ('deit3_large', VIT_L),
    ('vit_', VIT_B),
    ('deit', VIT_B),
    ('beit', VIT_B),
    ('eva', VIT_B),
    ('convnext', CONVNEXT),
    ('volo', VOLO),
    ('resnet', None),
    ('resnext', None),
    ('wide_resnet', None),
    ('regnet', None),
)


def timm_entry(name: str, model: str) -> ZooEntry:
    """Describe a model of timm; its colours are those that timm gives for its weights.

    Args:
        name: Name that the user gave.
        model: timm's name, with or without the tag of its weights.

    Raises:
        SwapError: timm has no such model. The message has similar names.
    """
    try:
        check_name(model)
    except OptionError as error:
        raise SwapError(str(error)) from error
    base = model.partition('.')[0]
    cfg = timm.get_pretrained_cfg(model)
    colours = IMAGENET if cfg is None else (_to_255(cfg.mean), _to_255(cfg.std))
    recipes = next((recipes for start, recipes in _RECIPES if base.startswith(start)), SWIN)
    backbone = dict(type='addp_mm.TimmBackbone', model=model, pretrained=bool(timm.list_pretrained(f'{base}.*')))
    return ZooEntry(name, backbone, colours, recipes)


def _to_255(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(255 * value, 3) for value in values)
