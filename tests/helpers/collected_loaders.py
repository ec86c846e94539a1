# Copyright (c) addp_mm contributors. Apache-2.0.
"""The workers of a data loader that the garbage collector removes, as with a Runner."""

import os

from torch.utils.data import _utils
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

_original = _MultiProcessingDataLoaderIter.__del__


def _del(self) -> None:
    """Kill workers that cannot learn that they are to end.

    The garbage collector closes the queues of an object in a cycle before it calls ``__del__``.
    torch then waits for each worker for five seconds, and kills it.
    """
    closed = any(queue._close and not queue._close.still_active() for queue in getattr(self, '_index_queues', ()))
    if closed and _utils.python_exit_status is False and not self._shutdown:
        _utils.signal_handling._remove_worker_pids(id(self))  # or their death is an error
        self._worker_pids_set = False
        for worker in self._workers:
            if worker._parent_pid == os.getpid():
                worker.kill()
    _original(self)


def end_workers_at_once() -> None:
    """Do so in this process and those that are forked from it."""
    _MultiProcessingDataLoaderIter.__del__ = _del
