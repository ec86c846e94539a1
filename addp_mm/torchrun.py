# Copyright (c) addp_mm contributors. Apache-2.0.
"""``python -m addp_mm.torchrun``: torchrun that reports a failed process in one line.

torchrun itself prints about 40 lines, most of them its own traceback, below the error of the
process. It takes the same arguments.
"""

import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from addp_mm.errors import LOST_STATUS


def main(argv: Sequence[str] | None = None) -> None:
    """Start the processes and wait for them; the exit status is 1 if one of them failed."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    args = parse_args(argv)
    if args.nproc_per_node != '1':
        os.environ.setdefault('OMP_NUM_THREADS', '1')  # as torchrun does, with a warning of five lines
    if 'LOGLEVEL' not in os.environ:  # torchrun's own switch: it logs each process that it stops
        logging.getLogger('torch.distributed.elastic.multiprocessing.api').setLevel(logging.CRITICAL)
    try:
        run(args)
    except ChildFailedError as error:
        rank = first_failure(error.failures)
        sys.exit(describe(rank, error.failures[rank], count=len(error.failures)))


def first_failure(failures: Mapping) -> int:
    """Rank of the process that failed first, not one that ended because another one was gone.

    Args:
        failures: ``torch.distributed.elastic.multiprocessing.errors.ProcessFailure`` by rank.
    """
    following = (LOST_STATUS, -signal.SIGTERM)
    own = [rank for rank, failure in failures.items() if failure.exitcode not in following]
    lost = [rank for rank, failure in failures.items() if failure.exitcode == LOST_STATUS]
    return min(own or lost or failures, key=lambda rank: failures[rank].timestamp)


def describe(rank: int, failure, count: int) -> str:
    """The line about the process that failed first.

    Args:
        rank: Its rank.
        failure: ``torch.distributed.elastic.multiprocessing.errors.ProcessFailure``.
        count: Number of processes that failed or were stopped.
    """
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        hint = ' (out of memory?)' if name == 'SIGKILL' else ''
        how = f'was ended by {name}{hint}'
    elif failure.exitcode == LOST_STATUS:
        how = 'ended because a process of another machine is gone; its error is above'
    else:
        how = f'ended with status {failure.exitcode}; its error is above'
    others = f'; {count - 1} more failed or were stopped' if count > 1 else ''
    return f'process {rank} {how}{others}'


if __name__ == '__main__':
    main()
