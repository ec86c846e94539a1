# Copyright (c) addp_mm contributors. Apache-2.0.
"""Layers of transformers that backbones, predictors and necks share."""

from addp_mm.models.layers.attention import Attention
from addp_mm.models.layers.block import Block
from addp_mm.models.layers.errors import ImageSizeError, OptionError
from addp_mm.models.layers.init import init_transformer_weights
from addp_mm.models.layers.norm import LN2d
from addp_mm.models.layers.patch_embed import PatchEmbed
from addp_mm.models.layers.pos_embed import resize_pos_embed

__all__ = [
    'Attention',
    'Block',
    'ImageSizeError',
    'LN2d',
    'OptionError',
    'PatchEmbed',
    'init_transformer_weights',
    'resize_pos_embed',
]
