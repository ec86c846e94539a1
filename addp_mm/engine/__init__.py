# Copyright (c) addp_mm contributors. Apache-2.0.
"""Hooks, loops, optimizers and strategies for mmengine's Runner."""

from addp_mm.engine import hooks, loops, optimizers, strategies

__all__ = ['hooks', 'loops', 'optimizers', 'strategies']
