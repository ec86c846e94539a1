# Copyright (c) addp_mm contributors. Apache-2.0.
"""A limit on the time in which a sample is read."""

from __future__ import annotations

import errno
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class SlowSampleError(TimeoutError):
    """A sample was not read within the time limit."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt a system call that takes too long, such as a read from a network disk that stalls.

    It uses the signal SIGALRM, which Python handles between two instructions: a decoder that does
    not return is not interrupted. There is no limit in other threads than the main one, on systems
    without SIGALRM, and if code in C handles the signal: Python could not restore its handler. A
    timer of other code that ends earlier stays; one that ends later goes on afterwards.

    Args:
        seconds: The limit; 0: none. If the code inside catches the error and reads something
            else, that has the same time.

    Raises:
        SlowSampleError: The limit is exceeded. It is an OSError.
    """
    if not seconds or not _has_timer():
        yield
        return
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    if 0 < left <= seconds:
        yield
        return
    start = time.monotonic()
    previous = signal.signal(signal.SIGALRM, lambda *_: _stop(seconds))
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:  # also if the signal came in the line above
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - start), 1e-3), interval)


def _has_timer() -> bool:
    in_main_thread = threading.current_thread() is threading.main_thread()
    # the handler of code in C is None
    return in_main_thread and hasattr(signal, 'setitimer') and signal.getsignal(signal.SIGALRM) is not None


def _stop(seconds: float) -> None:
    raise SlowSampleError(errno.ETIMEDOUT, f'not read within {seconds:g} s: the disk may not answer')
