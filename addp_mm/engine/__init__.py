# Copyright (c) addp_mm contributors. Apache-2.0.
from addp_mm.engine import hooks, loops, optimizers

__all__ = ['hooks', 'loops', 'optimizers']
