# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find out from the labels of many maps whether their numbers mean what the config says."""

from collections import Counter
from collections.abc import Sequence
from logging import WARNING
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from addp_mm.checks.dataset_cfg import quoted
from addp_mm.datasets.errors import DatasetError

_LARGE = 0.3  # label 0 of so many pixels is seldom "unlabelled"


def count_labels(values: np.ndarray) -> dict[int, int]:
    """Number of pixels of each label of a map."""
    if values.dtype in (np.uint8, np.bool_):
        counts = np.bincount(values.ravel(), minlength=256)
        return {int(label): int(counts[label]) for label in counts.nonzero()[0]}
    return dict(zip(*(found.tolist() for found in np.unique(values, return_counts=True)), strict=True))


def check_label_counts(
    folder: Path, counts: Counter, classes: Sequence[str], reduced: bool, ignore_index: int, training: bool
) -> None:
    """Warn if a class never occurs because its label is left out.

    Args:
        folder: Folder of the label maps, for messages.
        counts: Number of pixels of each label in the read maps.
        classes: Names of the classes.
        reduced: ``reduce_zero_label``: label 0 is left out, and 1 is the first class.
        ignore_index: Label of pixels that are left out.
        training: Whether the maps train a model.

    Raises:
        DatasetError: No pixel has a class, and the maps are for training.
    """
    used = set(counts) - ({0, ignore_index} if reduced else {ignore_index})
    if used:
        words = _left_out(counts, used, classes, reduced, ignore_index)
        if words:
            print_log(f'{folder}: {words}', 'current', WARNING)
        return
    found = ' and '.join(f'{label} ({_share(counts, label)})' for label in sorted(counts))
    why = f'ignore_index={ignore_index}' + (', reduce_zero_label=True' if reduced else '')
    words = f'{folder}: no pixel has a class: the maps hold {found}, which are left out ({why}).'
    if training:
        raise DatasetError(f'{words} {_remedy(counts, reduced)}')
    print_log(words, 'current', WARNING)


def _remedy(counts: Counter, reduced: bool) -> str:
    if reduced and 0 in counts:
        return (
            'If 0 is the first class, set reduce_zero_label=False in the dataset and in LoadAnnotations. Otherwise '
            'write the label maps again, with 1 as the first class.'
        )
    return 'Write the label maps again, with 1 as the first class.' if reduced else 'Write the label maps again.'


def _left_out(counts: Counter, used: set[int], classes: Sequence[str], reduced: bool, ignore_index: int) -> str:
    """What is odd about the labels of many maps; '' if nothing is."""
    names = {label + reduced: name for label, name in enumerate(classes)}
    if used == {0} and counts[ignore_index] and len(classes) > 1:
        return (
            f'the maps hold 0 and {ignore_index} only, and {ignore_index} ({_share(counts, ignore_index)}) is taken '
            f'for unlabelled (ignore_index), so that {_never(names, used)}. If {ignore_index} is class 1, write 1 '
            'instead, or set another ignore_index.'
        )
    if reduced and _starts_at_zero(counts, used, len(classes)):
        return (
            f'reduce_zero_label=True drops label 0 ({_share(counts, 0)}) and makes 1 the first class, but label '
            f'{len(classes)} is in no map, so that {_never(names, used)}. If 0 is the first class, set '
            'reduce_zero_label=False in the dataset and in LoadAnnotations.'
        )
    if not reduced and len(classes) > 2 and used == set(range(1, len(classes))):
        return (
            f'label 0 is in no map, so that {_never(names, used)}. If 1 is the first class and 0 means unlabelled, set '
            'reduce_zero_label=True in the dataset.'
        )
    return ''


def _starts_at_zero(counts: Counter, used: set[int], num_classes: int) -> bool:
    """Whether 0 looks like a class: the last label is missing, and all others or many 0 occur."""
    if num_classes in used or not counts[0]:
        return False
    return used == set(range(1, num_classes)) or counts[0] >= _LARGE * counts.total()


def _share(counts: Counter, label: int) -> str:
    return f'{100 * counts[label] / counts.total():.1f} % of the pixels'


def _never(names: dict[int, str], used: set[int]) -> str:
    """Name the classes that never occur, by the label that they would have in a map."""
    absent = [(label, name) for label, name in names.items() if label not in used]
    if len(absent) == 1:
        [(label, name)] = absent
        return f'class {list(names).index(label)} ({name!r}) never occurs'
    return f'{len(absent)} of {len(names)} classes never occur: {quoted(name for _, name in absent)}'
