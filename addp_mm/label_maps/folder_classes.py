# Copyright (c) addp_mm contributors. Apache-2.0.
"""Classes of images in folders of their class, to compare with what a classifier finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def folder_classes(names: Sequence[str], num_classes: int) -> dict[str, int] | None:
    """The class of each folder in sorted order; None unless there are as many folders as classes.

    Args:
        names: Paths of the images below the folder of all images, with ``/`` between the parts.
        num_classes: Number of classes of the classifier.
    """
    folders = sorted({name.split('/', 1)[0] for name in names if '/' in name})
    return {folder: label for label, folder in enumerate(folders)} if len(folders) == num_classes else None


def label_of_folder(name: str, classes: Mapping[str, int]) -> int | None:
    """The class of an image by the first folder of its name; None if that is no class."""
    return classes.get(name.split('/', 1)[0])
