# Copyright (c) addp_mm contributors. Apache-2.0.
"""Count objects, and measure their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from addp_mm.analysis.distribution import Distribution, distribution

# COCO's limits of small, medium and large objects, in square pixels.
_SMALL, _LARGE = 32**2, 96**2
_TOLERANCE = 1  # pixels by which a box may exceed its image, for rounding


@dataclass(frozen=True)
class BoxTable:
    """The boxes of a dataset as arrays.

    Attributes:
        classes: Names of the classes.
        sizes: (N, 2), width and height of each image; NaN where they are unknown.
        image: (M,), the image of each box, as an index into ``sizes``; -1 if there is none.
        label: (M,), its class, as an index into ``classes``; -1 if it is of no class.
        xywh: (M, 4), left, top, width and height in pixels; NaN where the annotation has no box.
        area: (M,), area of the mask, or of the box, in square pixels.
        ignored: (M,), whether it is a crowd or to be ignored.
    """

    classes: Sequence[str]
    sizes: np.ndarray
    image: np.ndarray
    label: np.ndarray
    xywh: np.ndarray
    area: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True)
class BoxStatistics:
    """Numbers of a :class:`BoxTable`. Objects are boxes of a class that are not ignored.

    Attributes:
        objects: Number of objects.
        ignored: Number of boxes of a class that are a crowd or to be ignored.
        of_no_class: Number of boxes whose category is not among the classes.
        by_class: Number of objects of each class.
        images_by_class: Number of images with an object of each class.
        empty_images: Number of images without an object.
        per_image: Objects in each image.
        width: Width of the objects' boxes.
        height: Height of the objects' boxes.
        root_area: Square root of the boxes' area.
        aspect: Width divided by height.
        small: Number of objects below 32² square pixels, by the area of the annotation, as COCO
            counts. ``medium`` up to 96², ``large`` above.
        outside: Number of objects whose box exceeds its image by more than one pixel.
        degenerate: Number of objects less than one pixel wide or high, or without area. mmdet drops
            them.
    """

    objects: int
    ignored: int
    of_no_class: int
    by_class: list[int]
    images_by_class: list[int]
    empty_images: int
    per_image: Distribution | None
    width: Distribution | None
    height: Distribution | None
    root_area: Distribution | None
    aspect: Distribution | None
    small: int
    medium: int
    large: int
    outside: int
    degenerate: int


def box_statistics(table: BoxTable) -> BoxStatistics:
    """Count and measure the boxes of a table."""
    of_class = table.label >= 0
    kept = of_class & ~table.ignored
    image, label, xywh, area = (values[kept] for values in (table.image, table.label, table.xywh, table.area))
    in_image = image >= 0
    per_image = np.bincount(image[in_image], minlength=len(table.sizes))
    width, height = xywh[:, 2], xywh[:, 3]
    num_classes = len(table.classes)
    pairs = np.unique(image[in_image].astype(np.int64) * max(num_classes, 1) + label[in_image])
    with np.errstate(divide='ignore', invalid='ignore'):
        aspect = width / height
        root_area = np.sqrt(width * height)
    return BoxStatistics(
        objects=int(kept.sum()),
        ignored=int((of_class & table.ignored).sum()),
        of_no_class=int((~of_class).sum()),
        by_class=np.bincount(label, minlength=num_classes).tolist(),
        images_by_class=np.bincount(pairs % max(num_classes, 1), minlength=num_classes).tolist(),
        empty_images=int((per_image == 0).sum()),
        per_image=distribution(per_image),
        width=distribution(width),
        height=distribution(height),
        root_area=distribution(root_area, logarithmic=True),
        aspect=distribution(aspect, logarithmic=True),
        small=int((area < _SMALL).sum()),
        medium=int(((area >= _SMALL) & (area < _LARGE)).sum()),
        large=int((area >= _LARGE).sum()),
        outside=int(_outside(xywh[in_image], table.sizes[image[in_image]]).sum()),
        degenerate=int(((width < 1) | (height < 1) | (area <= 0)).sum()),
    )


def _outside(xywh: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether each box exceeds its image; False where a number is unknown."""
    corner = xywh[:, :2]
    return ((corner < -_TOLERANCE) | (corner + xywh[:, 2:] > sizes + _TOLERANCE)).any(1)
