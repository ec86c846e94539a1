# Copyright (c) addp_mm contributors. Apache-2.0.
"""What can go wrong in a training: one detector a file, and what is saved of a failed iteration."""

from addp_mm.engine.guards.code_usage import CodeUsageGuard
from addp_mm.engine.guards.constant_prediction import ConstantPredictionGuard
from addp_mm.engine.guards.loss_guard import LossGuard
from addp_mm.engine.guards.loss_scale import LossScaleGuard

__all__ = ['CodeUsageGuard', 'ConstantPredictionGuard', 'LossGuard', 'LossScaleGuard']
