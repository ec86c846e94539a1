# Copyright (c) addp_mm contributors. Apache-2.0.
"""Signals that ask a training to save and to end, and its exit status then.

This file imports nothing heavy: tools handle signals before they import torch.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

STOPPED = 75  # EX_TEMPFAIL: saved; the same command with --resume continues
INTERRUPTED = 128 + signal.SIGINT
#: Statuses of a command that was stopped and has not failed.
STOPPED_STATUSES = (STOPPED, INTERRUPTED, 128 + signal.SIGTERM)
#: Ctrl-C, the end of a job, and the announcement of its end (``srun --signal=USR1@120``).
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
GO_ON = 'the same command with --resume continues'
_ONE_REQUEST_SECONDS = 2.0


class StopSignals:
    """Keeps the first signal that asks the process to stop; the second one ends it at once.

    A launcher passes on what the terminal has sent to the whole group, so another kind of signal
    within two seconds belongs to the first one.

    Attributes:
        received: The first signal, or None.
        is_awaited: Whether the training looks for :attr:`received` itself. Else a signal raises
            KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.is_awaited = False
        self.is_handling = False
        self._time = 0.0

    @contextmanager
    def handled(self, is_awaited: bool = False) -> Iterator[None]:
        """Handle the signals within a context. Outside of the main thread nothing changes.

        Args:
            is_awaited: First value of the attribute. Defaults to False.
        """
        if self.is_handling or threading.current_thread() is not threading.main_thread():
            yield
            return
        self.received, self.is_awaited, self.is_handling = None, is_awaited, True
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            if self.is_handling:
                self._handle_by(before)

    def ignore(self) -> None:
        """Ignore further signals until the process ends: everything is saved."""
        if self.is_handling:
            self._handle_by(dict.fromkeys(SIGNALS, signal.SIG_IGN))

    def _handle_by(self, handlers: Mapping[signal.Signals, Any]) -> None:
        self.is_handling = False
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        new, now = signal.Signals(number), time.monotonic()
        if self.received is None:
            self.received, self._time = new, now
            if not self.is_awaited:
                raise KeyboardInterrupt(number)
        elif new == self.received or now - self._time > _ONE_REQUEST_SECONDS:
            os._exit(128 + number)  # also in the middle of a save: an unfinished file has no final name


#: Those of this process.
signals = StopSignals()


class TrainingStopped(SystemExit):
    """Ends a training that a signal has stopped, after it has saved."""


def status_of(received: signal.Signals) -> int:
    """Exit status of a training that this signal has stopped."""
    return INTERRUPTED if received == signal.SIGINT else STOPPED


@contextmanager
def exit_on_stop(is_awaited: bool = False) -> Iterator[None]:
    """Handle the signals while a training is prepared, and run by a runner with ``StopHook``.

    Before the training starts, a signal ends the process at once with one line.

    Args:
        is_awaited: Whether a signal must wait for the start of the training: if there are several
            processes, all of them stop together. Defaults to False.

    Raises:
        SystemExit: A signal has ended the work; status 75 after SIGTERM and SIGUSR1, 130 after
            SIGINT.
    """
    with signals.handled(is_awaited):
        try:
            yield
        except BaseException as error:
            # other packages turn KeyboardInterrupt into errors of their own
            is_stop = signals.received is not None and not signals.is_awaited
            if not is_stop and not isinstance(error, KeyboardInterrupt):
                raise
            received = signals.received or signal.SIGINT
            print(f'stopped by {received.name} before the training; {GO_ON}', file=sys.stderr, flush=True)
            sys.exit(status_of(received))


def keep_workers_running(loader: Any) -> None:
    """Let only the training process end its data workers.

    Ctrl-C and the signals of a scheduler reach all processes of a job. A worker goes on then, since
    the training needs its batch to finish the iteration.

    Args:
        loader: The ``DataLoader``, before its first iteration.
    """
    loader.worker_init_fn = partial(_keep_worker_running, loader.worker_init_fn)
    get_iterator = loader._get_iterator  # noqa: SLF001  (torch has no public way)

    def start_workers() -> Any:
        # A worker has the default handlers until its init function; it inherits what is blocked.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            return get_iterator()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    loader._get_iterator = start_workers  # noqa: SLF001


def _keep_worker_running(before: Any, worker: int) -> None:
    """The ``worker_init_fn`` that precedes another one."""
    if hasattr(signal, 'sigwaitinfo'):
        owner = multiprocessing.parent_process()
        threading.Thread(target=_end_with, args=(owner and owner.pid,), daemon=True).start()
    else:  # macOS does not tell who sent a signal
        for number in (signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if before is not None:
        before(worker)


def _end_with(owner: int | None) -> None:
    """End the process when its owner asks for it; only this thread receives the signals."""
    while signal.sigwaitinfo(SIGNALS).si_pid != owner:
        pass
    os._exit(0)
