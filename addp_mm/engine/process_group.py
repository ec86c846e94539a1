# Copyright (c) addp_mm contributors. Apache-2.0.
"""Several processes of a tool that does not build a Runner."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from mmengine import dist
from mmengine.dist.utils import init_dist

Result = TypeVar('Result')

_TIMEOUT_SECONDS = 7 * 24 * 3600  # a process may have to wait until the slowest one has finished


def start_process_group(launcher: str) -> None:
    """Join the processes that a launcher started; each gets its own GPU, if there are GPUs.

    Args:
        launcher: The ``--launcher`` of the tool; 'none' does nothing.
    """
    if launcher != 'none':
        # only small objects are exchanged, for which gloo is enough
        init_dist(launcher, backend='gloo', timeout=_TIMEOUT_SECONDS)


def in_main_process(work: Callable[[], Result]) -> Result:
    """Call a function in the main process; all processes get its result.

    Args:
        work: Its result can be pickled.

    Raises:
        SystemExit: In the other processes, if the function raised an error in the main one.
    """
    outcome: list = [None, False]
    if not dist.is_main_process():
        dist.broadcast_object_list(outcome)
        if not outcome[1]:
            sys.exit(1)  # the main process prints the error
        return outcome[0]
    try:
        outcome = [work(), True]
    finally:
        dist.broadcast_object_list(outcome)
    return outcome[0]
