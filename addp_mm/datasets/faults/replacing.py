# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read a sample, or another one in its place if it is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from addp_mm.datasets.samplers.seeded_samples import SampleIndex, seed_again


def read_or_replace(
    index: int, count: int, attempts: int, read: Callable[[int], Any], record: Callable[[int, Exception], None]
) -> Any:
    """Read a sample; instead of a broken one, read another.

    The other samples follow from ``index`` alone, so that they are the same in each process and
    after a resume. Each draws the random numbers that the first one would have drawn.

    Args:
        index: Number of the sample. A :class:`SampleIndex` stays one.
        count: Number of all samples.
        attempts: Number of samples to try.
        read: Reads a sample.
        record: Records that a sample is broken. It raises an error if it is not, or if too many
            are.

    Returns:
        What ``read`` returned; None if all attempts failed.
    """
    for attempt in range(attempts):
        chosen = _substitute(index, attempt, count) if attempt else index
        try:
            if attempt:
                seed_again()
            return read(chosen)
        except Exception as error:
            record(chosen, error)
    return None


def _substitute(index: int, attempt: int, count: int) -> int:
    chosen = int(np.random.default_rng([int(index), attempt]).integers(count))
    return SampleIndex(chosen, index.seed, index.position) if isinstance(index, SampleIndex) else chosen
