# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check the class folders of mmpretrain's folder datasets."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS

from addp_mm.checks.dataset_cfg import classes_of, join, local_datasets, prefix_of, quoted
from addp_mm.checks.type_lookup import is_kind
from addp_mm.datasets.errors import DatasetError


def check_same_classes(dataset_cfgs: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that datasets without names of classes have the same class folders.

    mmpretrain numbers class folders by their order. If one dataset lacks a class or has another
    one, the same class gets another number, and every metric is wrong.
    :func:`addp_mm.checks.datasets.check_dataset_cfg` compares the folders of a dataset with its
    names of classes.

    Args:
        dataset_cfgs: The ``dataset`` of each data loader by the loader's name, that of the training
            first. Datasets without class folders, or whose folder does not exist, are skipped.

    Raises:
        DatasetError: The folders differ. The message names the folders and the classes.
    """
    found = [
        (loader, part)
        for loader, cfg in dataset_cfgs.items()
        for part in local_datasets(cfg)
        if reads_folders(part) and labelled_by_folder(part) and images_of(part).is_dir()
    ]
    for loader, part in found[1:]:
        first_loader, first = found[0]
        names, others = names_in(images_of(first)), names_in(images_of(part))
        if names != others and None in (classes_of(first, 'mmpretrain'), classes_of(part, 'mmpretrain')):
            raise DatasetError(
                f'{images_of(first)} ({first_loader}) and {images_of(part)} ({loader}) have different class folders '
                f'(only in the first: {quoted(sorted(set(names) - set(others)))}; only in the second: '
                f'{quoted(sorted(set(others) - set(names)))}), so that the same class would have two numbers. Make '
                'them the same. Or set metainfo=dict(classes=[…]) in both and, where a folder lacks a class, ann_file '
                'to a list of its images ("image label" lines).'
            )


def reads_folders(cfg: Mapping) -> bool:
    """Whether a dataset config is of one of mmpretrain's classes that read folders of images."""
    names = ('CustomDataset', 'ImageNet')
    return is_kind(cfg.get('type'), DATASETS, 'mmpretrain.datasets', *names, keeping='load_data_list')


def images_of(cfg: Mapping) -> Path:
    """The folder of a folder dataset's images."""
    return join(cfg, prefix_of(cfg).get('img_path') or cfg.get('split', ''))


def list_of(cfg: Mapping) -> Path | None:
    """The file that lists the images of a folder dataset; None if it reads the whole folder."""
    ann_file, split = cfg.get('ann_file'), cfg.get('split', '')
    if not ann_file and split and join(cfg, f'meta/{split}.txt').is_file():
        ann_file = f'meta/{split}.txt'  # as mmpretrain's ImageNet does
    return join(cfg, ann_file) if ann_file else None


def labelled_by_folder(cfg: Mapping) -> bool:
    """Whether the sub-folders of a folder dataset are its classes."""
    return list_of(cfg) is None and cfg.get('with_label', True) and cfg.get('split') != 'test'


def names_in(folder: Path) -> list[str]:
    """Names of the sub-folders in the order in which classes are numbered."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def check_class_folders(folder: Path, images: Iterable[str], classes: Sequence[str] | None) -> None:
    """Check that class folders contain images and are those of the classes.

    Args:
        folder: The folder of the class folders.
        images: All images below it, relative to it.
        classes: Names of the classes, if the config or the dataset class gives them.

    Raises:
        DatasetError: A class folder is empty, or the folders differ from the classes.
    """
    found, filled = names_in(folder), {Path(image).parts[0] for image in images}
    empty = [name for name in found if name not in filled]
    if empty:
        raise DatasetError(
            f'{folder}: the class folders {quoted(empty)} have no images. Fill or remove them. If unpacking the data '
            'was interrupted, unpack them again.'
        )
    if classes is not None:
        _check_names(folder, found, classes)


def _check_names(folder: Path, found: list[str], classes: Sequence[str]) -> None:
    """Compare class folders with classes; mmpretrain numbers the folders in alphabetical order."""
    if not set(found) & set(classes):
        if len(found) != len(classes):
            raise DatasetError(
                f'{folder}: {len(found)} class folders for {len(classes)} classes. Set '
                'metainfo=dict(classes=[…]) to the names of the folders, or complete the folder.'
            )
        return
    missing, unknown = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
    if missing or unknown:
        raise DatasetError(
            f'{folder}: the class folders differ from metainfo.classes (missing: {quoted(missing)}; '
            f'not in metainfo: {quoted(unknown)}). Correct one of them.'
        )
    if list(classes) != found:
        raise DatasetError(
            f'{folder}: class folders are numbered in alphabetical order, but metainfo.classes has '
            f'another order ({quoted(classes)}). Sort metainfo.classes.'
        )
