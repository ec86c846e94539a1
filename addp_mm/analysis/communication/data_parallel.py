# Copyright (c) addp_mm contributors. Apache-2.0.
"""Exchanges of a training step with DistributedDataParallel."""

from __future__ import annotations

from addp_mm.analysis.communication.exchange import ALL_REDUCE, Exchange, Group
from addp_mm.analysis.communication.step_trace import StepTrace

BUCKET_BYTES = 25 * 2**20
FIRST_BUCKET_BYTES = 2**20


def data_parallel(trace: StepTrace, group: Group, passes: int = 1, images: float = 1) -> list[Exchange]:
    """An all-reduce for each bucket of gradients, in the last pass of the step.

    DistributedDataParallel fills buckets in the order in which the gradients are complete, from its
    second step on. It exchanges a bucket when it is full: 1 MiB for the first, 25 MiB for the
    others. Buffers are not exchanged: mmengine sets ``broadcast_buffers=False``.

    Args:
        trace: The step, of one image.
        group: The processes.
        passes: Forward and backward passes of a step. Defaults to 1.
        images: Images of a pass in each process. Defaults to 1.
    """
    parameters = dict(trace.model.named_parameters())
    before = (passes - 1) * trace.operations
    exchanges: list[Exchange] = []
    size, gradients = 0, trace.gradients()
    for event in gradients:
        parameter = parameters[event.name]
        size += parameter.numel() * parameter.element_size()
        if size >= (BUCKET_BYTES if exchanges else FIRST_BUCKET_BYTES) or event is gradients[-1]:
            exchanges.append(Exchange(ALL_REDUCE, size, group, (before + event.at) * images))
            size = 0
    return exchanges
