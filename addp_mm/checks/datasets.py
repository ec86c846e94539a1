# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check what a dataset config points at, before a runner is built."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from addp_mm.checks.class_folders import check_class_folders, images_of, labelled_by_folder, list_of, reads_folders
from addp_mm.checks.coco import check_coco
from addp_mm.checks.config_parts import classes_of, expected_images, local_parts, prefix_of, quoted, read_text
from addp_mm.checks.image_folders import IMAGE_EXTENSIONS, check_image_files, check_image_folder, missing_files
from addp_mm.checks.image_reading import reading_of
from addp_mm.checks.label_maps import check_label_maps
from addp_mm.config.type_names import type_name
from addp_mm.datasets.errors import DatasetError, check_folder_exists


def check_dataset_cfg(cfg: Mapping[str, Any]) -> None:
    """Check the files and folders of a dataset config.

    Covers the stock classes that read folders of images (mmpretrain's CustomDataset and ImageNet),
    COCO annotations (mmdet's CocoDataset) and label maps (mmseg's BaseSegDataset and its
    subclasses), and wrappers around them. Other classes and remote paths pass unseen. Images are
    read as the pipeline's first loader does; those of a loader that is not known here only need to
    be there and hold something.

    Args:
        cfg: The ``dataset`` of a data loader.

    Raises:
        DatasetError: A wrong path; an empty or half-written folder; damaged images; an annotation
            file that is broken, lacks a class or does not fit its pictures. The message names the
            file and says what to do.
    """
    for part in local_parts(cfg):
        prefix = prefix_of(part)
        if reads_folders(part):
            _check_folders(part)
        elif type_name(part.get('type')) == 'CocoDataset':
            check_coco(part, prefix)
        elif 'seg_map_path' in prefix:
            check_label_maps(part, prefix)


def _check_folders(cfg: Mapping) -> None:
    folder, path, read = images_of(cfg), list_of(cfg), reading_of(cfg.get('pipeline')).decode
    if path is not None:
        _check_list_file(path, folder, cfg, read)
        return
    extensions = tuple(cfg.get('extensions', IMAGE_EXTENSIONS))
    images = check_image_folder(folder, extensions, expected_images(cfg, folder), read)
    if labelled_by_folder(cfg):
        check_class_folders(folder, images, classes_of(cfg, 'mmpretrain', cfg['type']))


def _check_list_file(path: Path, folder: Path, cfg: Mapping, read: Callable[[bytes], object]) -> None:
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
            raise DatasetError(
                f'{path}: label {highest}, but metainfo.classes has {len(classes)} classes. Add the '
                'classes that are lacking.'
            )
    absent = missing_files(folder, names)
    if absent:
        raise DatasetError(
            f'{path}: {len(absent)} of the {len(names)} images it lists are not in {folder}: '
            f'{quoted(absent)}. Complete the folder, or correct data_prefix.'
        )
    check_image_files(folder, names, read=read)
