# Copyright (c) addp_mm contributors. Apache-2.0.
"""How measured values grow with a size: exponents between neighbouring sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

# Above it, a value grows faster than linearly. A page, a cache and a clock are worth a tenth.
MOST_LINEAR = 1.1
NONE = '–'

# a value with its quartiles
Spread = tuple[float, float, float]


@dataclass(frozen=True)
class Exponent:
    """The power with which a value grows between two sizes: 1 is linear.

    Args:
        value: From the medians.
        least: From the upper quartile at the smaller size and the lower one at the larger size.
    """

    value: float
    least: float


@dataclass(frozen=True)
class Growth:
    """A value at growing sizes.

    Args:
        name: Name of the value.
        sizes: The sizes, in ascending order.
        values: Lower quartile, median and upper quartile at each size. None: it was not measured.
    """

    name: str
    sizes: Sequence[float]
    values: Sequence[Spread | None]

    def exponents(self) -> list[Exponent | None]:
        """The exponent from each size to the next; None where a value is missing or 0."""
        points = list(zip(self.sizes, self.values, strict=True))
        return [_exponent(*one, *other) for one, other in pairwise(points)]

    def is_faster_than_linear(self) -> bool:
        """Whether an exponent is surely above :data:`MOST_LINEAR`."""
        return any(one is not None and one.least > MOST_LINEAR for one in self.exponents())

    def record(self) -> dict[str, Any]:
        """Everything, for a JSON file."""
        exponents = [one and one.value for one in self.exponents()]
        medians = [one and one[1] for one in self.values]
        return dict(
            name=self.name,
            sizes=list(self.sizes),
            medians=medians,
            exponents=exponents,
            faster_than_linear=self.is_faster_than_linear(),
        )


def exact(value: float | None) -> Spread | None:
    """A value that is measured once."""
    return None if value is None else (value, value, value)


def growth_table(growths: Sequence[Growth], unit: str) -> dict[str, Any]:
    """The exponents as a table, with ``header`` and ``rows``.

    Args:
        growths: The values, all at the same sizes.
        unit: Unit of the sizes.
    """
    sizes = growths[0].sizes
    steps = [f'{one:g} to {other:g}' for one, other in pairwise(sizes)]
    header = [f'exponent in {unit}', *steps, 'faster than linear']
    rows = [
        [
            growth.name,
            *(NONE if one is None else f'{one.value:.2f}' for one in growth.exponents()),
            'yes' if growth.is_faster_than_linear() else 'no',
        ]
        for growth in growths
    ]
    return dict(header=header, rows=rows)


def faster_than_linear(growths: Mapping[str, Sequence[Growth]]) -> list[str]:
    """A line for each value that grows faster than linearly.

    Args:
        growths: The values by title of their measurement.
    """
    lines = []
    for title, some in growths.items():
        for growth in some:
            if growth.is_faster_than_linear():
                shown = ', '.join(NONE if one is None else f'{one.value:.2f}' for one in growth.exponents())
                lines.append(f'{title}: {growth.name} (exponents {shown})')
    return lines


def _exponent(size: float, value: Spread | None, next_size: float, next_value: Spread | None) -> Exponent | None:
    if value is None or next_value is None or min(*value, *next_value) <= 0:
        return None
    ratio = math.log(next_size / size)
    return Exponent(math.log(next_value[1] / value[1]) / ratio, math.log(next_value[0] / value[2]) / ratio)
