# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmcv's operators at the sizes of usual detectors, to time them. Each file adds its operators."""

from addp_mm.benchmark.operators import deformable, layers, points, regions, rotated, suppression  # noqa: F401
from addp_mm.benchmark.operators.measured import OPERATORS, Inputs, Operator

__all__ = ['OPERATORS', 'Inputs', 'Operator']
