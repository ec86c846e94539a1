# Copyright (c) addp_mm contributors. Apache-2.0.
"""Optimizer wrapper constructors."""

from addp_mm.engine.optimizers.components import ComponentsOptimWrapperConstructor, JointOptimWrapperDict
from addp_mm.engine.optimizers.layer_decay import LayerDecayOptimWrapperConstructor

__all__ = ['JointOptimWrapperDict', 'LayerDecayOptimWrapperConstructor', 'ComponentsOptimWrapperConstructor']
