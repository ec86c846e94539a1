# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a model costs, worked out on the CPU from shapes: operations, parameters, memory of a training step."""

from addp_mm.analysis.costs import ModuleCost, StepMemory, forward_costs, training_memory
from addp_mm.analysis.dry_run import DryRun

__all__ = ['DryRun', 'ModuleCost', 'StepMemory', 'forward_costs', 'training_memory']
