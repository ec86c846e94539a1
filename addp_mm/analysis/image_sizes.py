# Copyright (c) addp_mm contributors. Apache-2.0.
"""Sizes of the images of a dataset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from addp_mm.analysis.distribution import Distribution, distribution

_MOST_COMMON = 200  # sizes that are kept


@dataclass(frozen=True)
class ImageSizes:
    """Sizes of images, in pixels.

    Attributes:
        count: Number of images whose size is known.
        unknown: Number of images whose size could not be read.
        width: Summary of the widths.
        height: Summary of the heights.
        distinct: Number of different sizes.
        common: Width, height and number of images of the most common sizes, the most common first.
    """

    count: int
    unknown: int
    width: Distribution | None
    height: Distribution | None
    distinct: int
    common: list[tuple[int, int, int]]


def image_sizes(sizes: np.ndarray) -> ImageSizes:
    """Summarise sizes.

    Args:
        sizes: (N, 2), width and height; NaN where the size is unknown.
    """
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
    known = sizes[np.isfinite(sizes).all(1)]
    pairs, counts = np.unique(known, axis=0, return_counts=True)
    order = np.argsort(-counts, kind='stable')[:_MOST_COMMON]
    return ImageSizes(
        count=len(known),
        unknown=len(sizes) - len(known),
        width=distribution(known[:, 0]),
        height=distribution(known[:, 1]),
        distinct=len(pairs),
        common=[(int(pairs[one, 0]), int(pairs[one, 1]), int(counts[one])) for one in order],
    )
