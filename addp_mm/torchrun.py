# Copyright (c) addp_mm contributors. Apache-2.0.
"""``python -m addp_mm.torchrun``: torchrun that reports a failed process in one line.

torchrun itself prints about 40 lines, most of them its own traceback, below the error of the
process. It takes the same arguments. It also passes SIGINT, SIGTERM and SIGUSR1 on, and waits until
the processes have saved: torchrun would kill them after 30 seconds.
"""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

from addp_mm.errors import LOST_STATUS
from addp_mm.stop_signals import SIGNALS, STOPPED, STOPPED_STATUSES


def main(argv: Sequence[str] | None = None) -> None:
    """Start the processes and wait for them; the exit status is 1 if one of them failed.

    If a signal has stopped them and they have saved, the status is theirs: 75, or 130 after SIGINT.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher import api
    from torch.distributed.run import parse_args, run

    os.environ['TORCHELASTIC_SIGNALS_TO_HANDLE'] = 'SIGHUP,SIGQUIT'
    vars(api)['LocalElasticAgent'] = _passing_on(api.LocalElasticAgent)

    args = parse_args(argv)
    if args.nproc_per_node != '1':
        os.environ.setdefault('OMP_NUM_THREADS', '1')  # as torchrun does, with a warning of five lines
    if 'LOGLEVEL' not in os.environ:  # torchrun's own switch: it logs each process that it stops
        logging.getLogger('torch.distributed.elastic.multiprocessing.api').setLevel(logging.CRITICAL)
    try:
        run(args)
    except ChildFailedError as error:
        statuses = {failure.exitcode for failure in error.failures.values()}
        if statuses <= {*STOPPED_STATUSES, -signal.SIGTERM} and max(statuses) > 0:
            sys.exit(STOPPED if STOPPED in statuses else max(statuses))
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


def _passing_on(agent: type) -> type:
    """A subclass of torchrun's agent that lets its processes end by themselves after a signal.

    Args:
        agent: ``torch.distributed.elastic.agent.server.local_elastic_agent.LocalElasticAgent``. It
            has no public way to change what it does on a signal.
    """

    class PassingOn(agent):  # type: ignore[misc, valid-type]
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self._processes, self._received = [], None
            self._set_handlers()

        def _set_handlers(self):
            for number in SIGNALS:
                signal.signal(number, self._pass_on)

        def _pass_on(self, number: int, _frame: FrameType | None) -> None:
            self._remaining_restarts, self._received = 0, number
            for process in self._processes:
                with contextlib.suppress(ProcessLookupError):  # it has ended
                    os.kill(process, number)

        def _start_workers(self, worker_group):
            started = super()._start_workers(worker_group)
            self._processes = list(started.values())
            self._set_handlers()  # older versions of torch have just set others
            if self._received:
                self._pass_on(self._received, None)
            return started

        def _monitor_workers(self, worker_group):
            result = super()._monitor_workers(worker_group)
            if any(failure.exitcode in STOPPED_STATUSES for failure in result.failures.values()):
                self._remaining_restarts = 0  # stopped by a signal, not failed
            return result

    return PassingOn


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
