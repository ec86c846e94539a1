# Copyright (c) addp_mm contributors. Apache-2.0.
"""An endless order of samples that can be entered at any place."""

from __future__ import annotations

from collections.abc import Iterator, Sized

from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from addp_mm.datasets.samplers.seeded_samples import SampleIndex
from addp_mm.registry import DATA_SAMPLERS

_ROUNDS = 6
_MASK = (1 << 64) - 1


def _mixed(value: int) -> int:
    """A well mixed 64-bit function (the finaliser of SplitMix64, Steele et al. 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31


class RandomOrder:
    """A random permutation of 0, …, size - 1 that takes no memory, whatever its size.

    A Feistel network permutes the next larger even number of bits; values outside of the range are
    permuted again until they fall into it.

    Args:
        size: Number of items.
        seed: Any integer.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.half = max(1, -(-(size - 1).bit_length() // 2))
        self.keys = [_mixed(_mixed(seed & _MASK) + turn) for turn in range(_ROUNDS)]

    def __getitem__(self, place: int) -> int:
        low = (1 << self.half) - 1
        while True:
            left, right = place >> self.half, place & low
            for key in self.keys:
                left, right = right, left ^ _mixed(right ^ key) & low
            place = left << self.half | right
            if place < self.size:
                return place


@DATA_SAMPLERS.register_module()
class ResumableInfiniteSampler(Sampler):
    """Indices without end, one random order of the data set after the other, for iteration-based training.

    As mmengine's ``InfiniteSampler``, with two differences: it can start anywhere at once
    (:class:`RandomStateHook` says where on resume, so that nothing is loaded in vain), and it keeps
    no list of indices. The order depends on the seed alone; rank r of w takes every w-th sample
    from the r-th on. Indices are :class:`SampleIndex`, from which data sets seed their
    augmentation.

    Args:
        dataset: The data set.
        shuffle: Whether orders are random; otherwise they are 0, 1, ….
        seed: Seed of the orders, the same on all ranks. Default: drawn, and agreed upon by all
            ranks.

    Raises:
        ValueError: The data set is empty.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.size, self.shuffle = len(dataset), shuffle
        if not self.size:
            raise ValueError('the data set is empty: check its paths')
        self.seed = sync_random_seed() if seed is None else seed
        self.start = 0

    def start_at(self, seed: int, position: int) -> None:
        """Let the next iterators start after ``position`` samples of all ranks together."""
        self.seed, self.start = seed, position

    def __iter__(self) -> Iterator[SampleIndex]:
        position, epoch = self.start + self.rank, None
        while True:
            if position // self.size != epoch:
                epoch = position // self.size
                order = RandomOrder(self.size, _mixed(self.seed & _MASK) + epoch) if self.shuffle else range(self.size)
            yield SampleIndex(order[position % self.size], self.seed, position)
            position += self.world_size

    def __len__(self) -> int:
        """Length of the data set."""
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """Nothing: there are no epochs here."""
