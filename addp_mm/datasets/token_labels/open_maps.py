# Copyright (c) addp_mm contributors. Apache-2.0.
"""Open a folder of label maps of either format."""

from __future__ import annotations

from pathlib import Path

from addp_mm.datasets.errors import check_folder_exists
from addp_mm.datasets.token_labels.label_map import LabelMapError
from addp_mm.datasets.token_labels.map_folder import ABOUT, TOOL, read_about
from addp_mm.datasets.token_labels.published_maps import PublishedMaps
from addp_mm.datasets.token_labels.stored_maps import StoredMaps


def open_label_maps(folder: str | Path, num_classes: int) -> StoredMaps | PublishedMaps:
    """Open the label maps of ``addp label-maps`` or the published ones.

    Args:
        folder: The folder.
        num_classes: Number of classes that the maps must have.

    Raises:
        DatasetError: The folder does not exist.
        LabelMapError: It has no complete label maps, or those of another number of classes.
    """
    folder = Path(folder)
    if not folder.exists():
        raise LabelMapError(f'{folder}: there are no label maps. Write them: {TOOL}')
    check_folder_exists(folder)
    if not (folder / ABOUT).is_file():
        return PublishedMaps(folder, num_classes)
    found = read_about(folder)['num_classes']
    if found != num_classes:
        raise LabelMapError(
            f'{folder} has label maps of {found} classes, but num_classes is {num_classes}. Write maps with a '
            f'classifier of {num_classes} classes, or correct num_classes'
        )
    return StoredMaps(folder)
