# Copyright (c) addp_mm contributors. Apache-2.0.
"""Any model of timm as a backbone of the zoo."""

from __future__ import annotations

import timm

from addp_mm.errors import suggest
from addp_mm.swap.plan import SwapError
from addp_mm.swap.recipes import CONVNEXT, SWIN, VIT_B, VIT_L, VOLO, Recipes
from addp_mm.swap.zoo_entry import ZooEntry

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
    base, _, tag = model.partition('.')
    if not timm.is_model(base):
        raise SwapError(f'timm {timm.__version__} has no model {base!r}{suggest(base, timm.list_models())}')
    tags = [full.partition('.')[2] for full in timm.list_pretrained(f'{base}.*')]
    if tag and tag not in tags:
        raise SwapError(f'timm has no weights {tag!r} of {base}; it has {", ".join(tags) or "none"}')
    cfg = timm.get_pretrained_cfg(model)
    colours = (
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
        if cfg is None
        else (tuple(round(255 * x, 3) for x in cfg.mean), tuple(round(255 * x, 3) for x in cfg.std))
    )
    recipes = next((recipes for start, recipes in _RECIPES if base.startswith(start)), SWIN)
    backbone = dict(type='addp_mm.TimmBackbone', model=model, pretrained=bool(tags))
    return ZooEntry(name, backbone, colours, recipes)
