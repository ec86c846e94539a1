# Copyright (c) addp_mm contributors. Apache-2.0.
"""The table of a comparison: each number of each model over the seeds, and against the base."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from addp_mm.alignment.intervals import mean_with_interval
from addp_mm.alignment.pipeline.comparison import DISTANCE, DIVERSITY, REWARD
from addp_mm.errors import ConfigError

BETTER = 'better_than_base'
#: By model and by name of the number: ``mean``, ``deviation`` (None for one seed) and ``values`` of
#: the seeds, and ``difference`` from the base: ``value``, ``low`` and ``high``.
ComparisonTable = Mapping[str, Mapping[str, Mapping[str, Any]]]


def summary(measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Mean and deviation of each number over the seeds, and its difference from the base.

    ``better_than_base`` is the share of images with a higher reward than the base's image of the
    same seed and number; equal ones count half. A number that a seed does not have is left out.

    Args:
        measured: Results of :func:`~addp_mm.alignment.pipeline.comparison.measure` for each seed,
            by model; the first is the base.

    Raises:
        ConfigError: The models have other numbers of images.
    """
    base = next(iter(measured.values()))
    numbers = {
        name: [_numbers(name, own, other) for own, other in zip(seeds, base, strict=True)]
        for name, seeds in measured.items()
    }
    every = [found for seeds in numbers.values() for found in seeds]
    keys = [key for key in every[0] if all(found.get(key) is not None for found in every)]
    table = {name: {key: _spread(found[key] for found in seeds) for key in keys} for name, seeds in numbers.items()}
    return with_differences(table)


def with_differences(table: ComparisonTable) -> dict[str, dict[str, dict[str, Any]]]:
    """A table with the differences from its first model, the base.

    The difference is that of each seed; it has a 95 % confidence interval over the seeds, and none
    for one seed.

    Args:
        table: As in ``comparison.json``, also of earlier versions, which had no differences.
    """
    base = next(iter(table.values()))
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, row in table.items():
        found[name] = {key: dict(number) for key, number in row.items()}
        for key, number in found[name].items():
            number['difference'] = None if row is base else _difference(number['values'], base[key]['values'])
    return found


def _difference(values: Sequence[float], base: Sequence[float]) -> dict[str, Any] | None:
    if len(values) != len(base):
        return None  # a number that a seed did not have, in a file of an earlier version
    return asdict(mean_with_interval(np.array(values, np.float64) - np.array(base, np.float64)))


def _numbers(name: str, own: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers of a model with one seed."""
    if len(own['rewards'][REWARD]) != len(base['rewards'][REWARD]):
        raise ConfigError(
            f'{name} and base have other numbers of images: the images of alignment.inpainting have changed. Add '
            '--restart-from comparison, or samples if the training has these images, too'
        )
    found: dict[str, float | None] = {key: statistics.fmean(values) for key, values in own['rewards'].items()}
    pairs = zip(own['rewards'][REWARD], base['rewards'][REWARD], strict=True)
    found[BETTER] = statistics.fmean((1 if one > two else 0.5 if one == two else 0) for one, two in pairs)
    return found | {key: own[key] for key in (DISTANCE, DIVERSITY)}


def _spread(values: Iterable[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return dict(mean=statistics.fmean(known), deviation=deviation, values=known)
