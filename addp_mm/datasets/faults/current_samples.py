# Copyright (c) addp_mm contributors. Apache-2.0.
"""The samples that the workers of a data loader are reading, in memory that all of them share."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import get_worker_info

_PID, _INDEX, _SINCE, _READS = range(4)


class CurrentSample(NamedTuple):
    """What a process is reading, or has read last.

    Attributes:
        pid: The process.
        number: Number of the sample in the dataset; -1 if its index is not a number.
        reads: Whether it is still reading.
        seconds: Time since it started to.
    """

    pid: int
    number: int
    reads: bool
    seconds: float


class CurrentSamples:
    """A small table: one row for each worker, and one for the main process.

    It holds numbers only: a worker that dies by a signal cannot say anything more, and the main
    process knows the names.

    Args:
        num_workers: Number of workers of the loader.
    """

    def __init__(self, num_workers: int) -> None:
        # torch passes its shared memory on to workers that are forked or spawned
        self._shared = torch.zeros(num_workers + 1, 4, dtype=torch.int64).share_memory_()
        self._rows = self._shared.numpy()

    def start(self, index: int | None) -> None:
        """Note that this process reads a sample; None: one whose index is not a number."""
        row = self._row()
        row[_READS] = 0
        row[_PID], row[_INDEX], row[_SINCE] = os.getpid(), -1 if index is None else index, time.monotonic_ns()
        row[_READS] = 1

    def end(self) -> None:
        """Note that this process has read its sample."""
        self._row()[_READS] = 0

    def read(self) -> list[CurrentSample]:
        """The samples of all processes that have read one."""
        now = time.monotonic_ns()
        return [
            CurrentSample(int(row[_PID]), int(row[_INDEX]), bool(row[_READS]), (now - int(row[_SINCE])) / 1e9)
            for row in self._rows
            if row[_PID]
        ]

    def _row(self) -> np.ndarray:
        worker = get_worker_info()
        return self._rows[-1 if worker is None else worker.id]

    def __getstate__(self) -> torch.Tensor:
        return self._shared

    def __setstate__(self, state: torch.Tensor) -> None:
        self._shared, self._rows = state, state.numpy()
