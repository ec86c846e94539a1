# Copyright (c) addp_mm contributors. Apache-2.0.
"""A dataset whose broken samples are replaced, or named, and whose reads have a time limit."""

from __future__ import annotations

import operator
import weakref
from typing import Any

from torch.utils.data import Dataset

from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.faults.current_samples import CurrentSamples
from addp_mm.datasets.faults.replacing import read_or_replace
from addp_mm.datasets.faults.sample_files import fault_of, sample_name
from addp_mm.datasets.faults.time_limit import time_limit
from addp_mm.datasets.listed.broken_images import BrokenImages

_OWN = frozenset(('watched', 'current', 'seconds', 'broken'))


class WatchedDataset(Dataset):
    """Another dataset, of any class with indices, in a data loader.

    It has the attributes of the other dataset, and a change of one changes the other dataset.

    Args:
        watched: The other dataset.
        current: Table of the samples that are being read.
        seconds: Time limit of a sample; 0: none.
        broken: Record of broken samples, which are replaced by others. None: a broken sample is an
            error, as in validation and test. Samples whose index is not a number are not replaced.

    Raises:
        DatasetError: A sample is broken and not replaced, or so many are broken that none is found.
        TooManyBrokenImagesError: More samples are broken than are allowed.
    """

    def __init__(self, watched: Any, current: CurrentSamples, seconds: float, broken: BrokenImages | None) -> None:
        self.watched, self.current, self.seconds, self.broken = watched, current, seconds, broken
        _LIVE.add(self)

    def __len__(self) -> int:
        return len(self.watched)

    def __getitem__(self, index: Any) -> Any:
        if _number(index) is None:
            return self._read(index)
        if self.broken is None:
            try:
                return self._read(index)
            except Exception as error:
                self._name(index, error)
                raise
        attempts = self.broken.allowed + 2
        sample = read_or_replace(index, len(self), attempts, self._read, self._record)
        if sample is None:
            raise DatasetError(
                f'{attempts} samples were broken one after the other, the first instead of '
                f'{sample_name(self.watched, index)}. Repair those listed in {self.broken.path}.'
            )
        return sample

    def _read(self, index: Any) -> Any:
        self.current.start(_number(index))
        try:
            with time_limit(self.seconds):
                return self.watched[index]
        finally:
            self.current.end()

    def _record(self, index: int, error: Exception) -> None:
        reason = fault_of(self.watched, index, error)
        if reason is None:
            raise error
        assert self.broken is not None
        self.broken.add(sample_name(self.watched, index), reason)

    def _name(self, index: Any, error: Exception) -> None:
        reason = fault_of(self.watched, index, error)
        if reason is not None:
            raise DatasetError(
                f'{reason} This sample is not of the training data, and no other one may replace it. Repair it.'
            ) from error

    def __getattr__(self, name: str) -> Any:
        # torch would read a batch with the other dataset's __getitems__; a copy is empty at first
        if name.startswith('__') or name in _OWN:
            raise AttributeError(name)
        return getattr(self.watched, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            super().__setattr__(name, value)
        else:
            setattr(self.watched, name, value)

    def __getstate__(self) -> dict:
        return dict(self.__dict__)

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)


def _number(index: Any) -> int | None:
    """The index of a sample; None if it is not a number, as in datasets of videos."""
    try:
        return operator.index(index)
    except TypeError:
        return None


_LIVE: weakref.WeakSet[WatchedDataset] = weakref.WeakSet()


def live_datasets() -> list[WatchedDataset]:
    """The watched datasets of this process."""
    return list(_LIVE)
