# Copyright (c) addp_mm contributors. Apache-2.0.
"""Samplers that can start at any position; the run's seed determines their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized

import numpy as np
from mmengine.dataset import DefaultSampler
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from addp_mm.datasets.samplers.seeded_samples import SampleIndex
from addp_mm.randomness import Purpose, seed_sequence
from addp_mm.registry import DATA_SAMPLERS


def _order(size: int, shuffle: bool, seed: int, epoch: int) -> Sequence[int] | np.ndarray:
    """Indices of one pass over the data: 0, 1, …, or a random permutation of them."""
    if not shuffle:
        return range(size)
    return np.random.default_rng(seed_sequence(seed, Purpose.DATA_ORDER, iteration=epoch)).permutation(size)


@DATA_SAMPLERS.register_module()
class ResumableInfiniteSampler(Sampler):
    """An infinite sequence of indices: one random order of the dataset after the other.

    It is for training by iterations. It differs from mmengine's ``InfiniteSampler`` in that it can
    start at any position: :class:`~addp_mm.engine.hooks.RandomStateHook` sets it on resume, so that
    no batch is loaded and dropped. The order depends on the seed only; rank r of w takes the
    samples r, r + w, r + 2w, …. Indices are :class:`SampleIndex`, from which datasets seed their
    augmentation.

    Args:
        dataset: The dataset.
        shuffle: Whether orders are random; otherwise they are 0, 1, …. Defaults to True.
        seed: Seed of the orders, the same on all ranks; mmengine passes the seed of the run.
            Defaults to None: a random seed, the same on all ranks.

    Raises:
        ValueError: The dataset is empty.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.dataset, self.size, self.shuffle = dataset, len(dataset), shuffle
        if not self.size:
            raise ValueError('the dataset is empty: check its paths')
        self.seed = sync_random_seed() if seed is None else seed
        self.start = 0

    def start_at(self, position: int) -> None:
        """Make the next iterators start after ``position`` samples of all ranks together."""
        self.start = position

    def __iter__(self) -> Iterator[SampleIndex]:
        position, epoch = self.start + self.rank, -1
        order: Sequence[int] | np.ndarray = ()
        while True:
            if position // self.size != epoch:
                epoch = position // self.size
                order = _order(self.size, self.shuffle, self.seed, epoch)
            yield SampleIndex(order[position % self.size], self.seed, position)
            position += self.world_size

    def __len__(self) -> int:
        """Length of the dataset."""
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: an infinite sampler has no epochs."""


@DATA_SAMPLERS.register_module()
class ResumableEpochSampler(DefaultSampler):
    """As :class:`ResumableInfiniteSampler`, for training by epochs.

    It is mmengine's ``DefaultSampler`` with other orders, and with indices that are
    :class:`SampleIndex`. The order of an epoch follows from the seed and the epoch's number;
    in ``DefaultSampler`` epoch e + 1 of seed s has the order of epoch e of seed s + 1.

    Args:
        dataset: The dataset.
        shuffle: Whether orders are random; otherwise they are 0, 1, …. Defaults to True.
        seed: As in :class:`ResumableInfiniteSampler`. Defaults to None.
        round_up: Whether all ranks get the same number of samples, a few samples twice. Defaults to
            True.
    """

    def __iter__(self) -> Iterator[SampleIndex]:
        size = len(self.dataset)
        order = _order(size, self.shuffle, self.seed, self.epoch)
        for number in range(self.rank, self.total_size, self.world_size):
            yield SampleIndex(order[number % size], self.seed, self.epoch * self.total_size + number)
