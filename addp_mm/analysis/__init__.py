# Copyright (c) addp_mm contributors. Apache-2.0.
"""Costs of a model: operations and parameters by module, and one training step to measure."""

from addp_mm.analysis.costs import ModuleCost, count_flops, forward_costs
from addp_mm.analysis.training_step import TrainingStep

__all__ = ['ModuleCost', 'TrainingStep', 'count_flops', 'forward_costs']
