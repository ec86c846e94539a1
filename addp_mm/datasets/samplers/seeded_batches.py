# Copyright (c) addp_mm contributors. Apache-2.0.
"""Batches of any sampler that can start later, and whose augmentation repeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from addp_mm.datasets.samplers.seeded_samples import SampleIndex, seeded_sample
from addp_mm.randomness import Purpose, random_states, random_states_kept, seed_process, set_random_states

# numbers of samples of one pass over the data lie below it
_PASS = 1 << 40


class SeededBatch:
    """Indices of one batch. Iterating over them seeds the process before each index.

    A ``DataLoader`` loads the samples of a batch while it iterates over the indices, here or in a
    worker. So the random transforms of a sample draw from generators that depend on its position
    only, whatever the dataset is.
    """

    def __init__(self, indices: Sequence, seed: int, position: int, step: int) -> None:
        """Make a batch.

        Args:
            indices: Numbers of the samples. :class:`SampleIndex` has its own seed and position.
            seed: Seed of the other indices.
            position: Position of the first index.
            step: Difference of the positions of two indices, the number of ranks.
        """
        self.indices, self.seed, self.position, self.step = indices, seed, position, step

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator:
        for number, index in enumerate(self.indices):
            seed, position = self.seed, self.position + number * self.step
            if isinstance(index, SampleIndex):
                seed, position = index.seed, index.position
            with seeded_sample(seed, position):
                yield index


class SeededBatches(Sampler):
    """A batch sampler around another one, for an exact resume.

    It skips batches without loading their samples, and yields :class:`SeededBatch`. Samplers that
    draw from the global generators repeat, too.

    Args:
        batches: The batch sampler.
        seed: Seed of the run.
        endless: Whether a new pass over the data starts after the last, as in training by
            iterations. Defaults to False.
    """

    def __init__(self, batches: Any, seed: int, endless: bool = False) -> None:
        self.batches, self.seed, self.endless = batches, seed, endless
        self.rank, self.world_size = get_dist_info()
        self._pass = self._skipped = 0

    def start_at(self, number: int, skipped: int) -> None:
        """Make the next iterator start with pass ``number``, without its first ``skipped`` batches.

        If the sampler is endless, the skipped batches may be more than a pass.
        """
        self._pass, self._skipped = number, skipped

    def __iter__(self) -> Iterator[SeededBatch]:
        number, skipped = self._pass, self._skipped
        self._skipped = 0
        while True:
            source = _OnePass(self.batches, self.seed, number)
            skipped -= source.skip(skipped)
            yield from self._seeded(source, number)
            if not self.endless or not source.samples:
                return
            number += 1
            if hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(number)

    def _seeded(self, source: _OnePass, number: int) -> Iterator[SeededBatch]:
        while True:
            position = (number * _PASS + source.samples) * self.world_size + self.rank
            batch = source.next_batch()
            if batch is None:
                return
            yield SeededBatch(batch, self.seed, position, self.world_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str) -> Any:
        # hooks read sampler, batch_size and others
        if name == 'batches':  # a copy that is not filled yet
            raise AttributeError(name)
        return getattr(self.batches, name)


class _OnePass:
    """One pass over a batch sampler, with random states of its own.

    The states of the process would depend on how far the workers are ahead.
    """

    def __init__(self, batches: Any, seed: int, number: int) -> None:
        self.samples = 0
        with random_states_kept():
            seed_process(seed, Purpose.BATCH_ORDER, iteration=number, accelerators=False)
            self._source = iter(batches)
            self._states = random_states()

    def skip(self, count: int) -> int:
        """Drop batches, ``count`` or all that there are; return their number."""
        with self._own_states():
            for number in range(count):
                if self._advance() is None:
                    return number
        return count

    def next_batch(self) -> Sequence | None:
        """The next batch, or None after the last."""
        with self._own_states():
            return self._advance()

    def _advance(self) -> Sequence | None:
        batch = next(self._source, None)
        self.samples += 0 if batch is None else len(batch)
        return batch

    @contextmanager
    def _own_states(self) -> Iterator[None]:
        with random_states_kept():
            set_random_states(self._states)
            yield
            self._states = random_states()
