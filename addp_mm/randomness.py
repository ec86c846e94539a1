# Copyright (c) addp_mm contributors. Apache-2.0.
"""Random numbers of a run: each generator follows from (run seed, purpose, rank, iteration).

``np.random.SeedSequence`` mixes the four numbers, so that two runs, purposes, ranks or iterations
share no random numbers, and a resumed run draws the same numbers as an uninterrupted run.
"""

# At the top level of the package, because addp_mm.datasets uses it and must not import the engine.
from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch

from addp_mm.devices import seed_accelerators


class Purpose(IntEnum):
    """Purposes of random numbers. The values are part of the seeds: do not change them."""

    TRAINING_STEP = 0  # noise levels, masks, dropout, code restarts, RoI sampling
    PREVIEW = 1  # images generated for the visualizer during training
    DATA_ORDER = 2  # order of the samples; the epoch is the iteration
    AUGMENTATION = 3  # random transforms of a sample; its position in training is the iteration
    BATCH_ORDER = 4  # samplers without a seed of their own; the number of the pass is the iteration
    AFTER_ROLLBACK = 5  # the seed of a run whose epoch is repeated
    REDRAW = 6  # seeds of the draws of addp_mm.alignment.redraw; the draw is the iteration


def seed_sequence(seed: int, purpose: Purpose, rank: int = 0, iteration: int = 0) -> np.random.SeedSequence:
    """The source of all generators.

    Args:
        seed: Seed of the run, not negative.
        purpose: Purpose of the random numbers.
        rank: Rank of the process, if each rank needs other numbers. Defaults to 0.
        iteration: Number of the training iteration, epoch or sample. Defaults to 0.
    """
    return np.random.SeedSequence([seed, purpose, rank, iteration])


def torch_generator(seed: int, purpose: Purpose, rank: int = 0, iteration: int = 0) -> torch.Generator:
    """A torch generator on the CPU. Arguments as :func:`seed_sequence`."""
    return torch.Generator().manual_seed(_torch_seed(seed_sequence(seed, purpose, rank, iteration)))


def seed_process(seed: int, purpose: Purpose, rank: int = 0, iteration: int = 0, accelerators: bool = True) -> None:
    """Seed the global generators of Python, numpy and torch.

    Args:
        seed: As in :func:`seed_sequence`.
        purpose: As in :func:`seed_sequence`.
        rank: As in :func:`seed_sequence`. Defaults to 0.
        iteration: As in :func:`seed_sequence`. Defaults to 0.
        accelerators: Whether to seed the generators of the GPUs as well. Defaults to True.
    """
    sequence = seed_sequence(seed, purpose, rank, iteration)
    words = sequence.generate_state(8)
    random.seed(words[:4].tobytes())
    np.random.seed(words[4:])  # noqa: NPY002  # the mm packages' transforms draw from it
    torch_seed = _torch_seed(sequence)
    torch.default_generator.manual_seed(torch_seed)
    if accelerators:
        seed_accelerators(torch_seed)


def seed_after_rollback(seed: int) -> int:
    """A new seed of a run that follows from the one before, below 2**31."""
    return int(seed_sequence(seed, Purpose.AFTER_ROLLBACK).generate_state(1)[0] >> np.uint32(1))


def random_states() -> tuple:
    """The states of the global CPU generators of Python, numpy and torch."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  # as in seed_process


def set_random_states(states: tuple) -> None:
    """Give the global CPU generators the states that :func:`random_states` returned."""
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


@contextmanager
def random_states_kept() -> Iterator[None]:
    """A context after which the global CPU generators have the states that they had before."""
    states = random_states()
    try:
        yield
    finally:
        set_random_states(states)


@torch.compiler.disable
def generator_from_process() -> torch.Generator:
    """A torch generator on the CPU, seeded by one draw from torch's global CPU generator."""
    return torch.Generator().manual_seed(int(torch.randint(2**63 - 1, ())))


def _torch_seed(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
