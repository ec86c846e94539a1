# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find image files with the same content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np

from addp_mm.analysis.image_sources import ImageSource
from addp_mm.analysis.parallel import in_threads

_HEAD = 16 * 1024  # bytes that are compared before whole files
_NUM_GROUPS = 50


@dataclass(frozen=True)
class Duplicates:
    """Files with the same content.

    Attributes:
        compared: Number of files.
        unreadable: Number of files that could not be read.
        within: By split, the number of images that repeat another one of the same split.
        between: By pair of splits, the number of images of the second one that the first one has.
        groups: Names of the files of some groups, as pairs of split and name. Groups across splits
            come first.
    """

    compared: int
    unreadable: int
    within: dict[str, int]
    between: dict[tuple[str, str], int]
    groups: list[list[tuple[str, str]]]


def as_json(found: Duplicates | None) -> dict | None:
    """The numbers as JSON; None if there are none."""
    if found is None:
        return None
    return {**vars(found), 'between': {f'{second} in {first}': n for (first, second), n in found.between.items()}}


def find_duplicates(sources: Mapping[str, Sequence[ImageSource]], num_workers: int = 1) -> Duplicates:
    """Find image files with the same bytes.

    Only files of the same size are read, first their beginning, then all of those that still agree.

    Args:
        sources: The images by split.
        num_workers: Number of threads. Defaults to 1.
    """
    files = [
        (split, source, index) for split, some in sources.items() for source in some for index in range(len(source))
    ]
    keys = (_num_bytes, _digest_of_head, _digest)
    group = np.zeros(len(files), np.int64)
    candidates = np.arange(len(files))
    unreadable = 0
    for step, key in enumerate(keys, 1):
        some = [files[number][1:] for number in candidates.tolist()]
        found = in_threads(partial(_value, key), some, num_workers, f'Comparing files, step {step} of {len(keys)}')
        candidates, group, failed = _refined(candidates, group, list(found))
        unreadable += failed
    return _summary(files, candidates, group, list(sources), unreadable)


def _num_bytes(source: ImageSource, index: int) -> int:
    return source.num_bytes(index)


def _digest_of_head(source: ImageSource, index: int) -> bytes:
    return hashlib.blake2b(source.read(index, _HEAD), digest_size=16).digest()


def _digest(source: ImageSource, index: int) -> bytes:
    return hashlib.blake2b(source.read(index), digest_size=16).digest()


def _value(key: Callable[[ImageSource, int], object], image: tuple[ImageSource, int]) -> object:
    """A value that is equal for equal files; None if the file cannot be read."""
    try:
        return key(*image)
    except OSError:
        return None


def _refined(candidates: np.ndarray, group: np.ndarray, values: Sequence[object]) -> tuple[np.ndarray, np.ndarray, int]:
    """Keep the files whose group and value another file has too; they get new numbers of groups."""
    codes: dict[object, int] = {}
    numbers = np.array(
        [
            -1 if value is None else codes.setdefault((int(old), value), len(codes))
            for old, value in zip(group, values, strict=True)
        ],
        np.int64,
    )
    readable = numbers >= 0
    counts = np.bincount(numbers[readable], minlength=1)
    kept = readable & (counts[np.maximum(numbers, 0)] > 1)
    return candidates[kept], numbers[kept], int((~readable).sum())


def _summary(
    files: Sequence[tuple[str, ImageSource, int]],
    candidates: np.ndarray,
    group: np.ndarray,
    splits: Sequence[str],
    unreadable: int,
) -> Duplicates:
    members: dict[int, list[int]] = {}
    for number, one in zip(candidates.tolist(), group.tolist(), strict=True):
        members.setdefault(one, []).append(number)
    counts = [dict.fromkeys(splits, 0) for _ in members]
    for count, numbers in zip(counts, members.values(), strict=True):
        for number in numbers:
            count[files[number][0]] += 1
    within = {split: sum(max(count[split] - 1, 0) for count in counts) for split in splits}
    between = {
        (first, second): sum(count[second] for count in counts if count[first])
        for first, second in combinations(splits, 2)
    }
    shown = sorted(members.values(), key=lambda numbers: len({files[one][0] for one in numbers}) == 1)[:_NUM_GROUPS]
    groups = [[(files[one][0], files[one][1].name(files[one][2])) for one in numbers] for numbers in shown]
    return Duplicates(len(files), unreadable, within, between, groups)
