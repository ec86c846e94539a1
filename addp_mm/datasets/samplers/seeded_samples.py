# Copyright (c) addp_mm contributors. Apache-2.0.
"""Augmentation that depends on a seed and the position of a sample in training only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmcv.transforms import BaseTransform

from addp_mm.randomness import Purpose, random_states_kept, seed_process
from addp_mm.registry import TRANSFORMS


class SampleIndex(int):
    """An index into a dataset, with the seed and the position of its sample in training.

    Every dataset can use it as an integer.
    """

    seed: int
    position: int

    def __new__(cls, index: int, seed: int, position: int) -> SampleIndex:
        """Make an index.

        Args:
            index: Number of the sample in the dataset.
            seed: Seed of the run.
            position: Number of samples, of all ranks together, that come before it in training.
        """
        made = super().__new__(cls, index)
        made.seed, made.position = seed, position
        return made

    def __reduce__(self) -> tuple:
        return type(self), (int(self), self.seed, self.position)


# seed and position of the sample that this process reads, if it is read with one
_seeded: tuple[int, int] | None = None


@contextmanager
def seeded_sample(seed: int, position: int) -> Iterator[None]:
    """Seed the global CPU generators for the sample that is read in this context.

    Args:
        seed: Seed of the run.
        position: Position of the sample in training.
    """
    global _seeded
    before, _seeded = _seeded, (seed, position)
    try:
        seed_again()
        yield
    finally:
        _seeded = before


def seed_again() -> None:
    """In :func:`seeded_sample`: give the generators the states of its start; else do nothing."""
    if _seeded is not None:
        seed_process(_seeded[0], Purpose.AUGMENTATION, iteration=_seeded[1], accelerators=False)


@contextmanager
def random_state_of(index: int) -> Iterator[None]:
    """A context in which the global CPU generators depend on a :class:`SampleIndex` only.

    At its end the generators have their earlier state, so that a model in the same process draws
    the same numbers as without it. A plain integer changes nothing.
    """
    if not isinstance(index, SampleIndex):
        yield
        return
    with random_states_kept(), seeded_sample(index.seed, index.position):
        yield


@TRANSFORMS.register_module()
class SeedAugmentation(BaseTransform):
    """Seeds the transforms after it, for datasets of mmengine, mmpretrain, mmdet and mmseg.

    It is the first transform of a training pipeline. With :class:`ResumableInfiniteSampler` or
    :class:`ResumableEpochSampler` the random numbers of a sample then depend on the run's seed and
    the sample's position in training, but not on the worker or on earlier samples. With other
    samplers it does nothing. The datasets of this package do not need this transform.
    """

    def transform(self, results: dict) -> dict:
        """Seed the global CPU generators.

        Args:
            results: Sample with ``sample_idx``, which mmengine's ``BaseDataset`` sets.

        Returns:
            ``results``, unchanged.
        """
        index = results.get('sample_idx')
        if isinstance(index, SampleIndex):
            seed_process(index.seed, Purpose.AUGMENTATION, iteration=index.position, accelerators=False)
        return results
