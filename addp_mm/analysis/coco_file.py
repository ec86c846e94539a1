# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read a COCO annotation file into arrays, in one pass and little memory."""

from __future__ import annotations

import heapq
import json
import mmap
import zlib
from array import array
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from addp_mm.analysis.box_statistics import BoxTable
from addp_mm.finite import is_finite

_NUMBERS = 7  # columns of an annotation: image, category, left, top, width, height, area
_NAN = float('nan')


class CocoFile(NamedTuple):
    """Content of an annotation file.

    Attributes:
        table: The boxes.
        images: The records of the images.
        category_names: Name of each category id.
        samples: Some images with all their annotations, as pairs of records.
    """

    table: BoxTable
    images: list[dict]
    category_names: dict[Any, str]
    samples: list[tuple[dict, list[dict]]]


class _Annotations:
    """Receives every record of a JSON file while it is parsed; keeps annotations as numbers.

    A parser that returns all annotations as dicts needs several gigabytes for a million of them.

    Args:
        num_samples: Number of images whose annotations are kept whole.
        seed: Which images these are.
    """

    def __init__(self, num_samples: int, seed: int) -> None:
        self.numbers, self.ignored = array('d'), array('b')
        self.images: dict[Any, int] = {}
        self.categories: dict[Any, int] = {}
        self.samples: dict[Any, list[dict]] = {}
        self._num_samples, self._seed = num_samples, seed
        self._ranked: list[tuple[int, str, Any]] = []  # a heap: the kept image of the lowest rank is the first

    def __call__(self, record: dict) -> Any:
        """Called by the parser; returns what stands in the list instead of the record."""
        if 'image_id' not in record or 'category_id' not in record:
            return record
        image, category = record['image_id'], record['category_id']
        box = record.get('bbox')
        if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
            box = [_NAN] * 4
        self.numbers.extend((_code(self.images, image), _code(self.categories, category), *box))
        area = _number(record.get('area'))
        self.numbers.append(box[2] * box[3] if isnan(area) else area)
        self.ignored.append(bool(record.get('iscrowd') or record.get('ignore')))
        self._keep(image, record)
        return None

    def _keep(self, image: Any, record: dict) -> None:
        """Keep the annotations of the images whose hash is the lowest: an even sample of them."""
        image = _hashable(image)
        if image in self.samples:
            self.samples[image].append(record)
            return
        rank = -zlib.crc32(f'{self._seed} {image}'.encode())
        if len(self._ranked) >= self._num_samples and (not self._ranked or rank <= self._ranked[0][0]):
            return
        if len(self._ranked) >= self._num_samples:
            del self.samples[heapq.heappop(self._ranked)[-1]]
        # the ids 1 and '1' have the same rank, and cannot be compared
        heapq.heappush(self._ranked, (rank, type(image).__name__, image))
        self.samples[image] = [record]


def read_coco_file(path: Path, classes: Sequence[str] | None = None, num_samples: int = 0, seed: int = 0) -> CocoFile:
    """Read an annotation file.

    Records need not be complete: an image without a size has the size NaN, and so on.

    Args:
        path: The JSON file.
        classes: Names of the classes. Defaults to None: all categories of the file.
        num_samples: Number of images to return with their annotations. Defaults to 0.
        seed: Which images these are. Defaults to 0.

    Returns:
        The content.

    Raises:
        ValueError: It is not a COCO annotation file in JSON.
        OSError: It cannot be read.
    """
    found = _Annotations(num_samples, seed)
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        text = str(content, 'utf-8')  # type: ignore[call-overload]  # a map is a buffer
    sections = json.loads(text, object_hook=found)
    del text
    if not isinstance(sections, dict) or not all(
        isinstance(sections.get(key), list) for key in ('images', 'categories')
    ):
        raise ValueError('not a COCO annotation file: it needs "images", "annotations" and "categories"')
    images = [image for image in sections['images'] if isinstance(image, dict)]
    categories = [category for category in sections['categories'] if isinstance(category, dict)]
    names = list(classes) if classes is not None else [str(category.get('name')) for category in categories]
    rows = np.asarray(found.numbers).reshape(-1, _NUMBERS)
    index_of = {_hashable(image.get('id')): index for index, image in enumerate(images)}
    table = BoxTable(
        classes=names,
        sizes=np.array([(_number(image.get('width')), _number(image.get('height'))) for image in images]).reshape(
            -1, 2
        ),
        image=_indices(rows[:, 0], found.images, index_of),
        label=_indices(rows[:, 1], found.categories, _labels(categories, names)),
        xywh=rows[:, 2:6],
        area=rows[:, 6],
        ignored=np.asarray(found.ignored, bool),
    )
    samples = [(images[index_of[key]], records) for key, records in found.samples.items() if key in index_of]
    category_names = {_hashable(one.get('id')): str(one.get('name')) for one in categories}
    return CocoFile(table, images, category_names, samples)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or is_finite(value)


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else _NAN


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | str | float) else repr(value)


def _code(codes: dict[Any, int], value: Any) -> int:
    """Number of an id, in the order in which the ids occur."""
    return codes.setdefault(_hashable(value), len(codes))


def _labels(categories: Sequence[dict], names: Sequence[str]) -> dict[Any, int]:
    """Index of the class of each category id."""
    index = {name: number for number, name in reversed(list(enumerate(names)))}
    return {_hashable(one.get('id')): index[one['name']] for one in categories if one.get('name') in index}


def _indices(column: np.ndarray, codes: dict[Any, int], wanted: dict[Any, int]) -> np.ndarray:
    """Replace codes by the indices of their ids; -1 for an id that is not wanted."""
    table = np.array([wanted.get(key, -1) for key in codes] or [-1], np.int64)
    return table[column.astype(np.int64)]
