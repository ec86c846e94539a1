# Copyright (c) addp_mm contributors. Apache-2.0.
from addp_mm.engine import hooks, optimizers

__all__ = ['hooks', 'optimizers']
