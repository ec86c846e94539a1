# Copyright (c) addp_mm contributors. Apache-2.0.
"""Layers of transformers that backbones, predictors and necks share."""

from addp_mm.models.layers.attention import Attention
from addp_mm.models.layers.block import Block
from addp_mm.models.layers.errors import ImageSizeError, OptionError
from addp_mm.models.layers.init import init_transformer_weights
from addp_mm.models.layers.norm import LN2d
from addp_mm.models.layers.patch_embed import PatchEmbed
from addp_mm.models.layers.pos_embed import resize_pos_embed
from addp_mm.models.layers.rel_pos import rel_pos_bias, resize_rel_pos
from addp_mm.models.layers.rel_pos_table import CLASS_ENTRIES, num_offsets, rel_pos_table_bias, resize_rel_pos_table
from addp_mm.models.layers.window import window_partition, window_unpartition

__all__ = [
    'CLASS_ENTRIES',
    'Attention',
    'Block',
    'ImageSizeError',
    'LN2d',
    'OptionError',
    'PatchEmbed',
    'init_transformer_weights',
    'num_offsets',
    'rel_pos_bias',
    'rel_pos_table_bias',
    'resize_pos_embed',
    'resize_rel_pos',
    'resize_rel_pos_table',
    'window_partition',
    'window_unpartition',
]
