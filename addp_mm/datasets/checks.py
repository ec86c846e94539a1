# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check what a dataset config points at, before a runner is built."""
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from addp_mm.datasets.coco_checks import check_coco
from addp_mm.datasets.config_parts import classes_of, expected_images, join, quoted, read_text
from addp_mm.datasets.image_folder import (
    IMAGE_EXTENSIONS,
    DatasetError,
    check_folder_exists,
    check_image_files,
    check_image_folder,
    missing_files,
)
from addp_mm.datasets.label_map_checks import check_label_maps
from addp_mm.type_names import type_name

__all__ = ['DatasetError', 'check_dataset_cfg', 'check_image_folder']

_FOLDER_TYPES = ('CustomDataset', 'ImageNet')


def check_dataset_cfg(cfg: Mapping[str, Any]) -> None:
    """Check the files and folders of a dataset config.

    Covers the stock classes that read folders of images (mmpretrain's CustomDataset and ImageNet), COCO annotations
    (mmdet's CocoDataset) and label maps (mmseg's BaseSegDataset and its subclasses), and wrappers around them. Other
    classes and remote paths pass unseen.

    Args:
        cfg: The ``dataset`` of a data loader.

    Raises:
        DatasetError: A wrong path; an empty or half-written folder; damaged images; an annotation file that is
            broken or lacks a class. The message names the file and says what to do.
    """
    for inner in [cfg.get('dataset'), *(cfg.get('datasets') or [])]:
        if inner is not None:
            check_dataset_cfg(inner)
    if any('://' in str(cfg.get(key, '')) for key in ('data_root', 'ann_file')):
        return
    name = type_name(cfg.get('type'))
    prefix = cfg.get('data_prefix')
    prefix = dict(img_path=prefix) if isinstance(prefix, str) else dict(prefix or {})
    if name in _FOLDER_TYPES:
        _check_folders(cfg, prefix)
    elif name == 'CocoDataset':
        check_coco(cfg, prefix)
    elif 'seg_map_path' in prefix:
        check_label_maps(cfg, prefix)


def _check_folders(cfg: Mapping, prefix: dict) -> None:
    split = cfg.get('split', '')
    folder = join(cfg, prefix.get('img_path') or split)
    extensions = tuple(cfg.get('extensions', IMAGE_EXTENSIONS))
    ann_file = cfg.get('ann_file')
    if not ann_file and split and join(cfg, f'meta/{split}.txt').is_file():
        ann_file = f'meta/{split}.txt'  # as mmpretrain's ImageNet does
    if ann_file:
        _check_list_file(join(cfg, ann_file), folder, cfg)
        return
    images = check_image_folder(folder, extensions, expected_images(cfg, folder))
    if not cfg.get('with_label', True) or split == 'test':
        return
    found = sorted(path.name for path in folder.iterdir() if path.is_dir())
    filled = {Path(image).parts[0] for image in images}
    empty = [name for name in found if name not in filled]
    if empty:
        raise DatasetError(f'{folder}: the class folders {quoted(empty)} hold no images. Fill or remove them; if the '
                           'data were only half unpacked, do it again.')
    classes = classes_of(cfg, 'mmpretrain', cfg['type'])
    if classes is not None:
        _check_class_folders(folder, found, classes)


def _check_class_folders(folder: Path, found: list[str], classes: Sequence[str]) -> None:
    """Folder readers number classes by the sorted folder names, whatever ``classes`` says."""
    if set(found) & set(classes):
        absent, unknown = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
        if absent or unknown:
            raise DatasetError(f'{folder}: the class folders are not those of metainfo.classes (missing: '
                               f'{quoted(absent)}; not in metainfo: {quoted(unknown)}). Correct one of them.')
        if list(classes) != found:
            raise DatasetError(f'{folder}: class folders are numbered in alphabetical order, metainfo.classes has '
                               f'another ({quoted(classes)}). Sort metainfo.classes.')
    elif len(found) != len(classes):
        raise DatasetError(f'{folder}: {len(found)} class folders for {len(classes)} classes. Set metainfo='
                           'dict(classes=[…]) to the names of the folders, or complete the folder.')


def _check_list_file(path: Path, folder: Path, cfg: Mapping) -> None:
    """A text file of ``image`` or ``image label`` lines, as mmpretrain reads it."""
    lines = read_text(path).splitlines()
    if not lines:
        raise DatasetError(f'{path}: the list of images is empty.')
    check_folder_exists(folder)
    names = lines
    if cfg.get('with_label', True):
        pairs = [line.strip().rsplit(' ', 1) for line in lines]
        bad = next((k for k, pair in enumerate(pairs) if len(pair) != 2 or not pair[1].isdigit()), None)
        if bad is not None:
            raise DatasetError(f'{path}, line {bad + 1}: {lines[bad]!r} is not of the form "image label".')
        names = [pair[0] for pair in pairs]
        classes = classes_of(cfg, 'mmpretrain', cfg['type'])
        highest = max(int(pair[1]) for pair in pairs)
        if classes is not None and highest >= len(classes):
            raise DatasetError(f'{path}: label {highest}, but metainfo.classes has {len(classes)} classes. Add the '
                               'classes that are lacking.')
    absent = missing_files(folder, names)
    if absent:
        raise DatasetError(f'{path}: {len(absent)} of the {len(names)} images it lists are not in {folder}: '
                           f'{quoted(absent)}. Complete the folder, or correct data_prefix.')
    check_image_files(folder, names)
