# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check that training and evaluation number the classes of COCO files in the same way."""

from collections.abc import Mapping, Sequence
from typing import Any

from addp_mm.checks.coco import CocoFile
from addp_mm.checks.coco_use import reads_coco
from addp_mm.checks.dataset_cfg import classes_of, local_datasets, quoted, transforms_of
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
            raise DatasetError(_differ(trained_by, file.labels, evaluated_by, other.labels))


def check_configured_labels(cfg: Mapping, loader: str, files: _Files) -> None:
    """Check the classes of a test with those of the training in the same config.

    The training data are not read, and need not exist. A config may test a model that it does not
    train: a head with the number of the tested classes shows that.

    Args:
        cfg: The whole config.
        loader: Name of the loader of the tested data.
        files: Its datasets and files.

    Raises:
        DatasetError: The classes differ, and no head has as many classes as the tested data.
    """
    heads = {part['num_classes'] for part in transforms_of(cfg.get('model')) if 'num_classes' in part}
    trained = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    for part in local_datasets(trained):
        if not reads_coco(part):
            continue
        classes = classes_of(part, 'mmdet')
        for other_cfg, other in files:
            if part.get('return_classes') or other_cfg.get('return_classes') or not classes:
                continue
            if set(classes) != set(other.labels) and heads and len(other.labels) not in heads:
                raise DatasetError(_differ('train_dataloader', classes, loader, other.labels))


def _differ(trained_by: str, trained: Sequence[str], evaluated_by: str, evaluated: Sequence[str]) -> str:
    return (
        f'{evaluated_by} has the classes {quoted(evaluated, 20)}, but {trained_by} has {quoted(trained, 20)}: the '
        'numbers of the classes differ, so that CocoMetric would compare boxes of different classes. Set '
        f'{evaluated_by}.dataset.metainfo.classes to those of {trained_by}.'
    )
