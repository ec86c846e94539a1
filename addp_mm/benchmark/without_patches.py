# Copyright (c) addp_mm contributors. Apache-2.0.
"""Time the code of others as it runs without addp_mm."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from addp_mm.benchmark.paired_times import Case
from addp_mm.compat.matrix_products import by_mkl
from addp_mm.engine.cpu_memory import memory_given_back


def without_patches(case: Case) -> Case:
    """The case as it runs in a process that has not imported addp_mm.

    In its turns PyTorch computes matrix products by its own choice, and freed memory of the CPU
    goes back to the system: what addp_mm speeds up for every model of its process.

    Args:
        case: A case without ``begin`` and ``end``.
    """
    stack = ExitStack()

    def begin() -> None:
        stack.enter_context(memory_given_back())
        stack.enter_context(by_mkl())

    return replace(case, begin=begin, end=stack.close)
