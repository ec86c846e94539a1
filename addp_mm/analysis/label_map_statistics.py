# Copyright (c) addp_mm contributors. Apache-2.0.
"""Count the pixels of each label over the label maps of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from addp_mm.analysis.parallel import in_threads

_VALUES = 256  # mmseg converts label maps to eight bits


@dataclass(frozen=True)
class LabelCounts:
    """Pixels of each value, as stored in the files.

    Attributes:
        pixels: (256,), number of pixels of each value.
        images: (256,), number of maps that contain it.
        sizes: (N, 2), width and height of each map; NaN where it cannot be read.
        unreadable: Names of the maps that cannot be read as one channel.
    """

    pixels: np.ndarray
    images: np.ndarray
    sizes: np.ndarray
    unreadable: list[str]


@dataclass(frozen=True)
class LabelStatistics:
    """Numbers of labels as a training sees them.

    Attributes:
        pixels: Number of all pixels.
        by_class: Number of pixels of each class.
        images_by_class: Number of images with each class.
        ignored: Number of pixels that no loss and no metric counts.
        stored: Number of pixels of each value in the files, by value.
        meaning: Name of the class of each value in the files, 'ignored', or 'no class'.
        unusual: Number of pixels of each value that is no class and is not ignored, by value.
        unreadable: Names of the maps that cannot be read as one channel.
    """

    pixels: int
    by_class: list[int]
    images_by_class: list[int]
    ignored: int
    stored: dict[int, int]
    meaning: dict[int, str]
    unusual: dict[int, int]
    unreadable: list[str]


def count_labels(paths: Sequence[str], num_workers: int = 1) -> LabelCounts:
    """Count the pixels of each value in label maps.

    Args:
        paths: The files.
        num_workers: Number of threads. Defaults to 1.
    """
    pixels, images = np.zeros(_VALUES, np.int64), np.zeros(_VALUES, np.int64)
    sizes, unreadable = np.full((len(paths), 2), np.nan), []
    for index, found in enumerate(in_threads(_histogram, paths, num_workers, 'Counting labels')):
        if found is None:
            unreadable.append(paths[index])
            continue
        histogram, sizes[index] = found
        pixels += histogram
        images += histogram > 0
    return LabelCounts(pixels, images, sizes, unreadable)


def _histogram(path: str) -> tuple[np.ndarray, tuple[int, int]] | None:
    """Pixels of each value of a map, and its width and height; None if it cannot be read."""
    try:
        values = read_label_map(path)
    except (OSError, ValueError, SyntaxError):
        return None
    return np.bincount(values.ravel(), minlength=_VALUES), (values.shape[1], values.shape[0])


def read_label_map(path: str) -> np.ndarray:
    """Read a label map as mmseg does: one channel, converted to eight bits.

    Returns:
        uint8 (H, W).

    Raises:
        ValueError: It has several channels.
        OSError: It cannot be read.
    """
    with Image.open(path) as image:
        if len(image.getbands()) > 1:
            raise ValueError(f'{path} has the channels {", ".join(image.getbands())}')
        return np.asarray(image).astype(np.uint8)


def seen_labels(label_map: Mapping[int, int] | None, reduce_zero_label: bool) -> np.ndarray:
    """The label that a training sees for each value of a file, in the order of mmseg's loader.

    Args:
        label_map: New label by old label, or None.
        reduce_zero_label: Whether 0 becomes 255, and every other label is reduced by one.

    Returns:
        uint8 (256,).
    """
    labels = np.arange(_VALUES)
    if reduce_zero_label:
        labels = np.where(labels == 0, 255, labels) - 1
        labels[labels == 254] = 255
    before = labels.copy()
    for old, new in (label_map or {}).items():
        labels[before == old] = new
    return labels.astype(np.uint8)


def label_statistics(
    counts: LabelCounts, labels: np.ndarray, classes: Sequence[str], ignore_index: int
) -> LabelStatistics:
    """Count pixels by class.

    Args:
        counts: From :func:`count_labels`.
        labels: From :func:`seen_labels`.
        classes: Names of the classes.
        ignore_index: Label that no loss counts.
    """
    num_classes = len(classes)
    is_ignored = labels == ignore_index
    is_class = ~is_ignored & (labels < num_classes)
    stored = np.flatnonzero(counts.pixels)
    # If two values become the same class, the larger number is a lower bound.
    images = np.zeros(num_classes, np.int64)
    np.maximum.at(images, labels[is_class], counts.images[is_class])
    return LabelStatistics(
        pixels=int(counts.pixels.sum()),
        by_class=np.bincount(labels[is_class], counts.pixels[is_class], num_classes).astype(np.int64).tolist(),
        images_by_class=images.tolist(),
        ignored=int(counts.pixels[is_ignored].sum()),
        stored={int(value): int(counts.pixels[value]) for value in stored},
        meaning={
            int(value): 'ignored' if is_ignored[value] else classes[labels[value]] if is_class[value] else 'no class'
            for value in stored
        },
        unusual={int(value): int(counts.pixels[value]) for value in stored if not (is_class | is_ignored)[value]},
        unreadable=counts.unreadable,
    )
