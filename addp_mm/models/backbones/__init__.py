# Copyright (c) addp_mm contributors. Apache-2.0.
"""Backbones: images to features."""

from addp_mm.models.backbones.addp_vit import ADDPViT
from addp_mm.models.backbones.timm_backbone import TimmBackbone
from addp_mm.models.backbones.volo import VOLO

__all__ = ['VOLO', 'ADDPViT', 'TimmBackbone']
