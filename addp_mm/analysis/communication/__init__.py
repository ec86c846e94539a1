# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the processes of a distributed training exchange in a step, and what it costs."""

from addp_mm.analysis.communication.data_parallel import data_parallel
from addp_mm.analysis.communication.exchange import Exchange, Group
from addp_mm.analysis.communication.links import Links
from addp_mm.analysis.communication.overlap import StepTime, step_time
from addp_mm.analysis.communication.sharded import Sharding, sharded
from addp_mm.analysis.communication.step_trace import StepTrace, trace_step

__all__ = [
    'Exchange',
    'Group',
    'Links',
    'Sharding',
    'StepTime',
    'StepTrace',
    'data_parallel',
    'sharded',
    'step_time',
    'trace_step',
]
