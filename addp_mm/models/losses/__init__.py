# Copyright (c) addp_mm contributors. Apache-2.0.
from addp_mm.models.losses.soft_target_cross_entropy import SoftTargetCrossEntropy

__all__ = ['SoftTargetCrossEntropy']
