# Copyright (c) addp_mm contributors. Apache-2.0.
"""The classes of images whose ids are stored: from class folders, a dataset or a text file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.listed.open_images import image_name
from addp_mm.errors import first_few

FOLDERS, DATASET = 'folders', 'dataset'
_NO_CLASS = -1


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
    paths = [Path(image_name(images, index)) for index in range(len(images))]
    loose = [str(path) for path in paths if len(path.parts) < 2]
    if loose:
        raise DatasetError(
            f'--labels {FOLDERS}: {len(loose):,} of {len(paths):,} images are in no class folder below the root '
            f'({first_few(loose, 3)}). Move each image into the folder of its class, or give a file of labels'
        )
    classes = tuple(sorted({path.parts[0] for path in paths}))
    number = {name: k for k, name in enumerate(classes)}
    return ClassLabels(np.array([number[path.parts[0]] for path in paths], np.int64), classes)


def _from_dataset(images: Any) -> ClassLabels:
    found = [images.get_data_info(index).get('gt_label') for index in range(len(images))]
    without = [image_name(images, k) for k, label in enumerate(found) if label is None or np.size(label) != 1]
    if without:
        raise DatasetError(
            f'--labels {DATASET}: {len(without):,} of {len(found):,} images have no gt_label of one number '
            f'({first_few(without, 3)}). Give the config of a data set with labels (with_label=True)'
        )
    labels = np.array([np.asarray(label).item() for label in found], np.int64)
    return ClassLabels(labels, _names(labels, (getattr(images, 'metainfo', None) or {}).get('classes')))


def _from_file(images: Any, path: Path) -> ClassLabels:
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except OSError as error:
        raise DatasetError(
            f"--labels {path}: cannot be read ({error.strerror}). Give '{FOLDERS}', '{DATASET}' or a text file with "
            'lines "image label"'
        ) from error
    given: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ')
        if line.strip() and (not name or not label.removeprefix('-').isdigit() or int(label) < _NO_CLASS):
            raise DatasetError(
                f'{path}, line {number}: {line!r} is not of the form "image label", with a label of 0 or more, or -1 '
                'for no class. Correct it'
            )
        if line.strip():
            given[name] = int(label)
    names = [image_name(images, index) for index in range(len(images))]
    without = [name for name in names if name not in given]
    if without:
        raise DatasetError(
            f'{path} has no label of {len(without):,} of {len(names):,} images ({first_few(without, 3)}). Name them as '
            'here, relative to the folder of the images'
        )
    labels = np.array([given[name] for name in names], np.int64)
    return ClassLabels(labels, _names(labels, None))


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
