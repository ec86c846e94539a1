# Copyright (c) addp_mm contributors. Apache-2.0.
"""The classes of images whose ids are stored: from class folders, a dataset or a text file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.listed.open_images import image_name
from addp_mm.diffusion.token_space import NO_CLASS
from addp_mm.errors import first_few

FOLDERS, DATASET = 'folders', 'dataset'
# ImageNet-22k has 21,841; a larger number is rather that of an image, and each class has a name
_MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class ClassLabels:
    """The class of each image.

    Args:
        labels: (N,), int64; -1: no class.
        classes: Names of the classes in the order of their numbers.
    """

    labels: np.ndarray
    classes: tuple[str, ...]

    def settings(self) -> dict:
        """The names of the classes and a fingerprint of the labels, for ``tokens.json``."""
        return dict(classes=list(self.classes), fingerprint=hashlib.sha256(self.labels.tobytes()).hexdigest())


def read_class_labels(images: Any, source: str) -> ClassLabels:
    """Read the class of each image.

    Args:
        images: Result of :func:`~addp_mm.datasets.listed.open_images.open_images`.
        source: 'folders': the folder below the root that an image is in; folders are numbered in
            alphabetical order, as mmpretrain does. 'dataset': ``gt_label`` of the dataset of a
            config. Otherwise a text file with lines ``image label``, where the image is named as in
            the list of images and the label is a number.

    Raises:
        DatasetError: An image has no label, or a line of the file is wrong.
    """
    if source == FOLDERS:
        return _from_folders(images)
    if source == DATASET:
        return _from_dataset(images)
    return _from_file(images, Path(source))


def _from_folders(images: Any) -> ClassLabels:
    # one number for each image: paths of millions of images would not fit into memory
    seen: dict[str, int] = {}
    loose, labels = [], np.empty(len(images), np.int64)
    for index in range(len(images)):
        name = image_name(images, index)
        folder, *below = Path(name).parts
        if below:
            labels[index] = seen.setdefault(folder, len(seen))
        else:
            loose.append(name)
    if loose:
        raise DatasetError(
            f'--labels {FOLDERS}: {len(loose):,} of {len(images):,} images are in no class folder below the root '
            f'({first_few(loose, 3)}). Move each image into the folder of its class, or give a file of labels'
        )
    classes = tuple(sorted(seen))
    number = {name: k for k, name in enumerate(classes)}
    return ClassLabels(np.array([number[name] for name in seen], np.int64)[labels], classes)


def _from_dataset(images: Any) -> ClassLabels:
    found = [images.get_data_info(index).get('gt_label') for index in range(len(images))]
    without = [image_name(images, k) for k, label in enumerate(found) if label is None or np.size(label) != 1]
    if without:
        raise DatasetError(
            f'--labels {DATASET}: {len(without):,} of {len(found):,} images have no gt_label of one number '
            f'({first_few(without, 3)}). Give the config of a data set with labels (with_label=True)'
        )
    numbers = [np.asarray(label).item() for label in found]
    wrong = [f'{image_name(images, k)}: {number!r}' for k, number in enumerate(numbers) if not _is_label(number)]
    if wrong:
        raise DatasetError(
            f'--labels {DATASET}: gt_label must be a whole number from 0 to {_MOST_CLASSES - 1}, or {NO_CLASS} for no '
            f'class; got {first_few(wrong, 3)}. Correct the data set'
        )
    labels = np.array(numbers, np.int64)
    return ClassLabels(labels, _names(labels, (getattr(images, 'metainfo', None) or {}).get('classes')))


def _from_file(images: Any, path: Path) -> ClassLabels:
    given = _read_lines(path)
    without, labels = [], np.empty(len(images), np.int64)
    for index in range(len(images)):
        name = image_name(images, index)
        if name in given:
            labels[index] = given[name]
        else:
            without.append(name)
    if without:
        raise DatasetError(
            f'{path} has no label of {len(without):,} of {len(images):,} images ({first_few(without, 3)}). Name them '
            'as here, relative to the folder of the images'
        )
    return ClassLabels(labels, _names(labels, None))


def _read_lines(path: Path) -> dict[str, int]:
    """Label of each image of a text file."""
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = 'it is not in UTF-8' if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DatasetError(
            f"--labels {path}: cannot be read ({reason}). Give '{FOLDERS}', '{DATASET}' or a text file with "
            'lines "image label"'
        ) from error
    given: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, label = [*line.rsplit(maxsplit=1), ''][:2]
        if not re.fullmatch(r'-1|[0-9]{1,9}', label) or not _is_label(int(label)):
            raise DatasetError(
                f'{path}, line {number}: {line!r} is not of the form "image label", with a label from 0 to '
                f'{_MOST_CLASSES - 1}, or {NO_CLASS} for no class. Correct it'
            )
        if given.setdefault(name.strip(), int(label)) != int(label):
            raise DatasetError(
                f'{path}, line {number}: {name.strip()} has the label {label} here and {given[name.strip()]} before. '
                'Keep one'
            )
    return given


def _is_label(number: object) -> bool:
    return isinstance(number, int | float) and NO_CLASS <= number < _MOST_CLASSES and float(number).is_integer()


def _names(labels: np.ndarray, classes: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the classes; their numbers if the source has no names."""
    count = int(labels.max()) + 1
    if classes is None:
        return tuple(map(str, range(count)))
    if count > len(classes):
        raise DatasetError(
            f'--labels {DATASET}: label {count - 1}, but the dataset names {len(classes)} classes: correct '
            'metainfo.classes'
        )
    return tuple(classes)
