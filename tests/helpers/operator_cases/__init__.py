# Copyright (c) addp_mm contributors. Apache-2.0.
"""Calls of the operators of ``mmcv._ext``, to compare two implementations."""

from helpers.operator_cases import layers, overlaps, points, regions
from helpers.operator_cases.inputs import Inputs, OperatorCase

GROUPS = (*overlaps.GROUPS, *regions.GROUPS, *layers.GROUPS, *points.GROUPS)

__all__ = ['GROUPS', 'Inputs', 'OperatorCase']
