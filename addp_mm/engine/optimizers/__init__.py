# Copyright (c) addp_mm contributors. Apache-2.0.
"""Optimizer wrapper constructors."""

from addp_mm.engine.optimizers.layer_decay import LayerDecayOptimWrapperConstructor
from addp_mm.engine.optimizers.parts import JointOptimWrapperDict, PartsOptimWrapperConstructor

__all__ = ['JointOptimWrapperDict', 'LayerDecayOptimWrapperConstructor', 'PartsOptimWrapperConstructor']
