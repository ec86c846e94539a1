# Copyright (c) addp_mm contributors. Apache-2.0.
"""Loops of mmengine's Runner."""

from addp_mm.engine.loops.generation_val_loop import GenerationValLoop
from addp_mm.engine.loops.nearest_neighbour_loop import NearestNeighbourTestLoop

__all__ = ['GenerationValLoop', 'NearestNeighbourTestLoop']
