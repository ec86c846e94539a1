# Copyright (c) addp_mm contributors. Apache-2.0.
"""Join and leave the group of the processes that a launcher started."""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed
from mmengine import dist
from mmengine.dist.utils import init_dist

from addp_mm.errors import UserError

Result = TypeVar('Result')


class ProcessGroupError(UserError, RuntimeError):
    """The processes of a launcher cannot form a group."""


_TIMEOUT_SECONDS = 7 * 24 * 3600  # a process may have to wait until the slowest one has finished
_GROUP_ERROR = re.compile(r'[Gg]loo|NCCL|c10d|onnection (closed|reset) by peer|Broken pipe|Timed out')
_END_SECONDS = 20.0  # in which threads, and what atexit holds, must end
_has_left = False


def start_process_group(launcher: str) -> None:
    """Join the processes that a launcher started; each gets its own GPU, if there are GPUs.

    Args:
        launcher: The ``--launcher`` of the tool; 'none' does nothing.
    """
    if launcher != 'none':
        # only small objects are exchanged, for which gloo is enough
        init_dist(launcher, backend='gloo', timeout=_TIMEOUT_SECONDS)


def join_training(launcher: str, timeout: float, **options: Any) -> None:
    """Join the processes of a training or a test before anything is built.

    Args:
        launcher: The ``--launcher`` of the tool; 'none' does nothing.
        timeout: Seconds that an exchange may wait for another process.
        **options: Other options of mmengine's ``init_dist``, such as the backend.

    Raises:
        ProcessGroupError: Not all processes came.
    """
    if launcher == 'none' or dist.is_distributed():
        return
    if launcher == 'pytorch' and attempt() and not hosts_store(0):
        # torchrun keeps its store, where PyTorch 2.14 would read the addresses of ended processes
        ranks = dict(rank=int(os.environ['RANK']), world_size=int(os.environ['WORLD_SIZE']))
        options.update(ranks, store=store_of_attempt('group', timeout))
    try:
        init_dist(launcher, timeout=timeout, **options)
    except RuntimeError as error:
        if not is_group_error(error):
            raise
        text = str(error).splitlines()[0]
        raise ProcessGroupError(
            f'not all processes came within {timeout:g} s (env_cfg.dist_cfg.timeout): {text}. Look at the logs of '
            'the others, and whether each machine reaches MASTER_ADDR'
        ) from error


def attempt() -> int:
    """How often torchrun has started the processes again."""
    return int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0))


def is_first_process() -> bool:
    """Whether this is the first process of a launcher, also before they form a group."""
    if dist.is_distributed():
        return dist.is_main_process()
    ranks = (os.environ[name] for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK') if name in os.environ)
    return next(ranks, '0') == '0'


def hosts_store(rank: int) -> bool:
    """Whether the process of this rank contains the store; that of torchrun is in the launcher."""
    return rank == 0 and os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True'


def store_of_attempt(name: str, timeout: float) -> torch.distributed.Store:
    """An own connection to the store of the processes, with keys of this attempt only.

    Args:
        name: What the keys are for.
        timeout: Seconds until the store or a key must be there.
    """
    store = torch.distributed.TCPStore(
        os.environ['MASTER_ADDR'],
        int(os.environ['MASTER_PORT']),
        is_master=False,
        wait_for_workers=False,
        timeout=timedelta(seconds=timeout),
    )
    return torch.distributed.PrefixStore(f'addp_mm/{attempt()}/{name}', store)


def is_group_error(error: BaseException | None) -> bool:
    """Whether an exchange of the processes raised an error, or one that it caused."""
    while error is not None:
        if isinstance(error, torch.distributed.DistError):
            return True
        if type(error) is RuntimeError and _GROUP_ERROR.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


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


def end_process(status: int | None = None) -> None:
    """End a process that was in a group, after its threads and what ``atexit`` holds.

    Call it last: Python's own end destroys all objects, and meanwhile a thread of gloo can end the
    process with SIGABRT. Such threads are left after FSDP: autograd keeps the sharded weights, and
    these keep the group.

    Args:
        status: Exit status of a process whose group is lost. It ends in any case, after 20 s at
            most. Defaults to None: 0, and a process that was in no group ends as usual.
    """
    if status is None and not _has_left:
        return
    if status is not None:
        last = threading.Timer(_END_SECONDS, os._exit, [status])
        last.daemon = True
        last.start()
    if threading.current_thread() is threading.main_thread():
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001  (Python has no public way)
    atexit._run_exitfuncs()  # noqa: SLF001
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)
