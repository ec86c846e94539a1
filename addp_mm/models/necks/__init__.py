# Copyright (c) addp_mm contributors. Apache-2.0.
"""Necks: features to pyramids, and features and visible tokens to token states."""

from addp_mm.models.necks.four_scale_neck import FourScaleNeck
from addp_mm.models.necks.simple_fpn import SimpleFPN
from addp_mm.models.necks.token_decoder import TokenDecoder

__all__ = ['FourScaleNeck', 'SimpleFPN', 'TokenDecoder']
