# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check that training and evaluation number the classes of COCO files in the same way."""

from collections.abc import Sequence
from typing import Any

from addp_mm.checks.coco import CocoFile
from addp_mm.checks.dataset_cfg import quoted
from addp_mm.datasets.errors import DatasetError

_Files = Sequence[tuple[Any, CocoFile]]


def check_same_labels(trained_by: str, trained: _Files, evaluated_by: str, evaluated: _Files) -> None:
    """Check that a number means the same class in training and in evaluation.

    mmdet numbers the classes of a file in the order of its categories, and leaves out those that
    ``metainfo.classes`` lacks. CocoMetric would compare the boxes of different classes.

    Args:
        trained_by: Name of the loader of the training data.
        trained: Its datasets and files.
        evaluated_by: Name of the loader of the evaluated data.
        evaluated: Its datasets and files.

    Raises:
        DatasetError: Numbers differ.
    """
    for cfg, file in trained:
        for other_cfg, other in evaluated:
            if file.labels == other.labels or cfg.get('return_classes') or other_cfg.get('return_classes'):
                continue
            if set(file.labels) == set(other.labels):
                raise DatasetError(
                    f'{file.path} and {other.path} have the same categories in another order, but mmdet numbers '
                    f'classes in the order of the file: {quoted(file.labels)} and {quoted(other.labels)}. Sort the '
                    'categories of one file as in the other.'
                )
            raise DatasetError(
                f'{evaluated_by} has the classes {quoted(other.labels, 20)}, but {trained_by} has '
                f'{quoted(file.labels, 20)}: the numbers of the classes differ, so that CocoMetric would compare '
                f'boxes of different classes. Set {evaluated_by}.dataset.metainfo.classes to those of {trained_by}.'
            )
