# Copyright (c) addp_mm contributors. Apache-2.0.
"""Augmentation that follows from a seed and a sample's place in the training, whichever process loads it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from addp_mm.registry import DATASETS


class SampleIndex(int):
    """An index into a data set that knows the seed and the place of its sample in the training.

    To every data set it is a plain integer.
    """

    seed: int
    position: int

    def __new__(cls, index: int, seed: int, position: int) -> SampleIndex:
        made = super().__new__(cls, index)
        made.seed, made.position = seed, position
        return made

    def __reduce__(self) -> tuple:
        return type(self), (int(self), self.seed, self.position)


def seed_cpu(*numbers: int) -> None:
    """Seed the global generators of Python, numpy and torch's CPU from non-negative integers."""
    words = np.random.SeedSequence(numbers).generate_state(8)
    random.seed(words[:2].tobytes())
    np.random.seed(words[2:6])  # noqa: NPY002  # what the mm packages' augmentations draw from
    torch.default_generator.manual_seed(int(words[6:8].view(np.uint64)[0] >> np.uint64(1)))


@contextmanager
def random_state_of(index: int) -> Iterator[None]:
    """Within, the global generators of the CPU are in a state that depends on a :class:`SampleIndex` alone.

    After it they are as before, so that a model in the same process draws what it would have drawn.
    A plain integer changes nothing.
    """
    if not isinstance(index, SampleIndex):
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    seed_cpu(index.seed, index.position)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


@DATASETS.register_module()
class SeededSamples(Dataset):
    """Any data set, with random augmentation that can be repeated.

    Under :class:`ResumableInfiniteSampler` what is drawn for a sample depends on the seed and its
    place in the training, not on the worker that loads it, their number, or what was loaded before.
    :class:`ImageFiles` and its like do so of their own accord and need no wrapper.

    Args:
        dataset: Config of the data set, or the data set.
    """

    def __init__(self, dataset: dict | Dataset) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset

    @property
    def metainfo(self) -> dict:
        return getattr(self.dataset, 'metainfo', {})

    def full_init(self) -> None:
        if hasattr(self.dataset, 'full_init'):
            self.dataset.full_init()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        with random_state_of(index):
            return self.dataset[index]
