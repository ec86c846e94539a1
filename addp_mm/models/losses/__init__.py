# Copyright (c) addp_mm contributors. Apache-2.0.
"""Losses of images and tokens."""

from addp_mm.models.losses.perceptual_loss import PerceptualLoss
from addp_mm.models.losses.soft_target_cross_entropy import SoftTargetCrossEntropy
from addp_mm.models.losses.token_label_loss import TokenLabelLoss
from addp_mm.models.losses.vgg_features import VGG16Features

__all__ = ['PerceptualLoss', 'SoftTargetCrossEntropy', 'TokenLabelLoss', 'VGG16Features']
