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
import threading
import uuid
from collections.abc import Mapping, Sequence

from addp_mm.errors import LOST_STATUS
from addp_mm.stop_signals import GO_ON, SIGNALS, STOPPED, STOPPED_STATUSES, status_of

#: Environment variable of the processes: an id of this launch, the same on all machines.
LAUNCH = 'ADDP_MM_LAUNCH'


def main(argv: Sequence[str] | None = None) -> None:
    """Start the processes and wait for them; the exit status is 1 if one of them failed.

    If a signal has stopped them and they have saved, the status is theirs: 75, or 130 after SIGINT.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher import api
    from torch.distributed.run import parse_args, run

    os.environ['TORCHELASTIC_SIGNALS_TO_HANDLE'] = 'SIGHUP,SIGQUIT'
    vars(api)['LocalElasticAgent'] = type('PassingOn', (_PassingOn, api.LocalElasticAgent), {})

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


class _PassingOn:
    """Part of torchrun's agent: its processes end by themselves after a signal.

    The agent has no public way to change what it does on a signal. While it waits for other
    machines, Python's handlers do not run in the main thread, so a thread reads the signals.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._launch, self._received, self._lock = uuid.uuid4().hex, None, threading.Lock()
        self._processes: list[int] | None = []  # None: all have ended, and the agent waits for other machines
        self._set_handlers()
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        threading.Thread(target=self._read_signals, args=(reader,), name='signals', daemon=True).start()

    def _set_handlers(self):
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)

    def _read_signals(self, reader: int) -> None:
        while numbers := os.read(reader, 1):
            if numbers[0] in SIGNALS:
                self._receive(signal.Signals(numbers[0]))

    def _receive(self, number: signal.Signals) -> None:
        with self._lock:
            self._remaining_restarts, self._received = 0, number
            self._pass_on()

    def _pass_on(self):
        if self._processes is None:
            print(f'stopped by {self._received.name} while no process was running; {GO_ON}', file=sys.stderr)
            sys.stderr.flush()
            os._exit(status_of(self._received))
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(process, self._received)

    def _set_processes(self, processes: list[int] | None) -> None:
        with self._lock:
            self._processes = processes
            if self._received and processes:
                self._pass_on()

    def _rendezvous(self, worker_group):
        with self._lock:
            self._processes = None
            if self._received:
                self._pass_on()
        super()._rendezvous(worker_group)  # type: ignore[misc]
        if worker_group.group_rank == 0:
            worker_group.store.set(LAUNCH, self._launch)
        else:
            self._launch = worker_group.store.get(LAUNCH).decode()
        os.environ[LAUNCH] = self._launch

    def _start_workers(self, worker_group):
        self._set_processes([])  # a signal waits until all have started
        started = super()._start_workers(worker_group)  # type: ignore[misc]
        self._set_handlers()  # older versions of torch have just set others
        self._set_processes(list(started.values()))
        return started

    def _stop_workers(self, *args, **kwargs):
        super()._stop_workers(*args, **kwargs)  # type: ignore[misc]
        self._set_processes([])

    def _monitor_workers(self, worker_group):
        result = super()._monitor_workers(worker_group)  # type: ignore[misc]
        if any(failure.exitcode in STOPPED_STATUSES for failure in result.failures.values()):
            self._remaining_restarts = 0  # stopped by a signal, not failed
        if result.state.name == 'SUCCEEDED':
            self._set_processes(None)
        return result


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
