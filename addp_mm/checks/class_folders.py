# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check the folders that name the classes of mmpretrain's folder data sets."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from addp_mm.checks.config_parts import classes_of, join, local_parts, prefix_of, quoted
from addp_mm.config.type_names import type_name
from addp_mm.datasets.errors import DatasetError


class _Numbered(NamedTuple):
    """A folder whose sub-folders number the classes of a data set."""

    title: str
    folder: Path
    names: list[str]
    given: bool  # whether the config, or the class of the data set, gives classes


def check_same_classes(dataset_cfgs: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that data sets that name no classes have the same class folders.

    mmpretrain numbers class folders by their order: in one that lacks a class, or has others, the
    same class has another number, and whatever is measured there is wrong. Data sets that give
    classes are compared with these by :func:`check_dataset_cfg`.

    Args:
        dataset_cfgs: The ``dataset`` of each data loader by the loader's name, that of the training
            first. Those that read no class folders, or whose folder is not there, are passed over.

    Raises:
        DatasetError: Names the folders and the classes that differ.
    """
    numbered = [found for title, cfg in dataset_cfgs.items() for found in _numbered(title, cfg)]
    for other in numbered[1:]:
        first = numbered[0]
        if first.names != other.names and not (first.given and other.given):
            raise DatasetError(
                f'{first.folder} ({first.title}) and {other.folder} ({other.title}) have different class folders '
                f'(only in the first: {_beyond(first, other)}; only in the second: {_beyond(other, first)}), so that '
                'the same class would have two numbers. Make them the same; or set metainfo=dict(classes=[…]) in both '
                'and, where a folder has not all classes, ann_file to a list of its images ("image label" lines).'
            )


def _numbered(title: str, cfg: Mapping) -> Iterable[_Numbered]:
    for part in local_parts(cfg):
        if reads_folders(part) and labelled_by_folder(part) and images_of(part).is_dir():
            folder = images_of(part)
            yield _Numbered(title, folder, names_in(folder), classes_of(part, 'mmpretrain', part['type']) is not None)


def _beyond(one: _Numbered, other: _Numbered) -> str:
    return quoted(sorted(set(one.names) - set(other.names)))


def reads_folders(cfg: Mapping) -> bool:
    """Whether a dataset config is of one of mmpretrain's classes that read folders of images."""
    return type_name(cfg.get('type')) in ('CustomDataset', 'ImageNet')


def images_of(cfg: Mapping) -> Path:
    return join(cfg, prefix_of(cfg).get('img_path') or cfg.get('split', ''))


def list_of(cfg: Mapping) -> Path | None:
    """The file that lists the images of a folder data set; None where all in the folder belong to it."""
    ann_file, split = cfg.get('ann_file'), cfg.get('split', '')
    if not ann_file and split and join(cfg, f'meta/{split}.txt').is_file():
        ann_file = f'meta/{split}.txt'  # as mmpretrain's ImageNet does
    return join(cfg, ann_file) if ann_file else None


def labelled_by_folder(cfg: Mapping) -> bool:
    """Whether the sub-folders of a folder data set are its classes."""
    return list_of(cfg) is None and cfg.get('with_label', True) and cfg.get('split') != 'test'


def names_in(folder: Path) -> list[str]:
    """Names of the folders in a folder, in the order that numbers them."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def check_class_folders(folder: Path, images: Iterable[str], classes: Sequence[str] | None) -> None:
    """Check that class folders hold images and are those of the classes.

    Args:
        folder: Holds the class folders.
        images: All images below it, relative to it.
        classes: Where the config, or the class of the data set, gives them.

    Raises:
        DatasetError: Names the folder and what is wrong.
    """
    found, filled = names_in(folder), {Path(image).parts[0] for image in images}
    empty = [name for name in found if name not in filled]
    if empty:
        raise DatasetError(
            f'{folder}: the class folders {quoted(empty)} hold no images. Fill or remove them; if the '
            'data were only half unpacked, do it again.'
        )
    if classes is not None:
        _check_names(folder, found, classes)


def _check_names(folder: Path, found: list[str], classes: Sequence[str]) -> None:
    """Folder readers number classes by the sorted folder names, whatever ``classes`` says."""
    if set(found) & set(classes):
        absent, unknown = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
        if absent or unknown:
            raise DatasetError(
                f'{folder}: the class folders are not those of metainfo.classes (missing: '
                f'{quoted(absent)}; not in metainfo: {quoted(unknown)}). Correct one of them.'
            )
        if list(classes) != found:
            raise DatasetError(
                f'{folder}: class folders are numbered in alphabetical order, metainfo.classes has '
                f'another ({quoted(classes)}). Sort metainfo.classes.'
            )
    elif len(found) != len(classes):
        raise DatasetError(
            f'{folder}: {len(found)} class folders for {len(classes)} classes. Set metainfo='
            'dict(classes=[…]) to the names of the folders, or complete the folder.'
        )
