# Copyright (c) addp_mm contributors. Apache-2.0.
"""Join and leave the group of the processes that a launcher started."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import torch.distributed
from mmengine import dist
from mmengine.dist.utils import init_dist

Result = TypeVar('Result')

_TIMEOUT_SECONDS = 7 * 24 * 3600  # a process may have to wait until the slowest one has finished
_has_left = False


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


def close_process_group() -> None:
    """Leave the process group after a run, if there is one.

    Otherwise a thread of gloo that is still there when Python exits can end the process with
    SIGABRT, so that a finished training counts as failed.
    """
    global _has_left
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        _has_left = True


def end_process(status: int = 0) -> None:
    """End a process that was in a group, after its threads and what ``atexit`` holds.

    Call it last: Python's own end destroys all objects, and meanwhile a thread of gloo can end the
    process with SIGABRT. Such threads are left after FSDP: autograd keeps the sharded weights, and
    these keep the group. A process that was in no group ends as usual.

    Args:
        status: Exit status. Defaults to 0.
    """
    if not _has_left:
        return
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001  (Python has no public way)
    atexit._run_exitfuncs()  # noqa: SLF001
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
