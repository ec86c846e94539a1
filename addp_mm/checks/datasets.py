# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check the files and folders of dataset configs, before a runner is built."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from addp_mm.checks.class_folders import (
    check_class_folders,
    check_same_classes,
    images_of,
    labelled_by_folder,
    list_of,
    reads_folders,
)
from addp_mm.checks.coco import CocoFile, check_coco, check_metric_file
from addp_mm.checks.coco_labels import check_configured_labels, check_same_labels
from addp_mm.checks.coco_use import CocoUse, counts_classes, reads_coco, use_of
from addp_mm.checks.dataset_cfg import classes_of, local_datasets, prefix_of, read_text
from addp_mm.checks.image_folders import IMAGE_EXTENSIONS, check_image_folder, check_listed_images
from addp_mm.checks.image_reading import reading_of
from addp_mm.checks.label_maps import check_label_maps
from addp_mm.checks.repaired_files import other_files, use_repaired_files
from addp_mm.checks.token_labels import check_token_labels
from addp_mm.checks.tolerance import broken_share, sample_seconds, tolerating
from addp_mm.config.nodes import node_at
from addp_mm.datasets.errors import DatasetError


def check_datasets(cfg: Config, *loaders: str, repaired_dir: str | Path | None = None) -> None:
    """Check the datasets of several data loaders, and that they number classes in the same way.

    COCO files that mmdet or pycocotools would read wrongly are repaired where only one value is
    right. Faulty annotations are left out of training, up to the share of BrokenSamplesHook. The
    config then names the repaired copies. If a training is resumed, a few files of the training
    data may be missing or damaged: they cause a warning.

    Args:
        cfg: The whole config.
        *loaders: Dotted names of the loaders' configs. Names that the config does not have are
            skipped. Class folders are also compared with those of the training data.
        repaired_dir: Folder for the repaired copies. Defaults to None: repairs are only logged.

    Raises:
        DatasetError: See :func:`check_dataset_cfg` and
            :func:`addp_mm.checks.class_folders.check_same_classes`.
    """
    datasets, coco = {}, {}
    for loader in dict.fromkeys(('train_dataloader', *loaders)):
        node = node_at(cfg, loader)
        if node is not None:
            datasets[loader] = node.dataset
            if loader in loaders:
                # a resumed training has started with these data: files may have gone since
                share = broken_share(cfg) if loader == 'train_dataloader' else None
                with tolerating(share if cfg.get('resume') else None, sample_seconds(cfg)):
                    coco[loader] = check_dataset_cfg(node.dataset, use_of(cfg, loader), share)
    check_same_classes(datasets)
    for loader in coco:
        if counts_classes(cfg, loader) and 'train_dataloader' in coco:
            check_same_labels('train_dataloader', coco['train_dataloader'], loader, coco[loader])
        elif counts_classes(cfg, loader):
            check_configured_labels(cfg, loader, coco[loader])
    for loader, files in coco.items():
        files += [(None, check_metric_file(path, use_of(cfg, loader))) for path in other_files(cfg, loader, files)]
        use_repaired_files(cfg, loader, files, repaired_dir)


def check_dataset_cfg(
    cfg: Mapping[str, Any], use: CocoUse | None = None, share: float | None = None
) -> list[tuple[Any, CocoFile]]:
    """Check the files and folders of a dataset config.

    It checks the standard classes that read folders of images (mmpretrain's CustomDataset and
    ImageNet), COCO annotations (mmdet's CocoDataset) and label maps (mmseg's BaseSegDataset),
    subclasses that read the same files, and wrappers around them. Other classes and remote paths
    are not checked. Images are read as the first loader of the pipeline reads them. If the loader
    is of an unknown class, an image file must only exist and not be empty.

    Args:
        cfg: The ``dataset`` of a data loader.
        use: What the run does with COCO annotations. Defaults to None: it does not evaluate them.
        share: Share of faulty COCO annotations that are left out of training. Defaults to None:
            they are errors.

    Returns:
        The configs of the datasets with COCO annotations, each with its file.

    Raises:
        DatasetError: A path is wrong, a folder is empty, an image is damaged, or an
            annotation file is broken, lacks a class or does not fit its images. The message names
            the file and a remedy.
    """
    coco = []
    for part in local_datasets(cfg):
        if reads_folders(part):
            _check_folders(part)
        elif reads_coco(part):
            coco.append((part, check_coco(part, use, share)))
        elif 'seg_map_path' in prefix_of(part):
            check_label_maps(part)
    return coco


def _check_folders(cfg: Mapping) -> None:
    folder, path, read = images_of(cfg), list_of(cfg), reading_of(cfg.get('pipeline')).decode
    if path is not None:
        _check_list_file(path, folder, cfg, read)
        return
    extensions = tuple(cfg.get('extensions', IMAGE_EXTENSIONS))
    images = check_image_folder(folder, extensions, read)
    check_token_labels(cfg, folder, images)
    if labelled_by_folder(cfg):
        check_class_folders(folder, images, classes_of(cfg, 'mmpretrain'))


def _check_list_file(path: Path, folder: Path, cfg: Mapping, read: Callable[[bytes], object]) -> None:
    """Check a text file of ``image`` or ``image label`` lines, as mmpretrain reads it."""
    names = lines = read_text(path).splitlines()
    if lines and cfg.get('with_label', True):
        pairs = [line.strip().rsplit(' ', 1) for line in lines]
        bad = next((k for k, pair in enumerate(pairs) if len(pair) != 2 or not pair[1].isdecimal()), None)
        if bad is not None:
            raise DatasetError(f'{path}, line {bad + 1}: {lines[bad]!r} is not of the form "image label". Correct it.')
        names = [pair[0] for pair in pairs]
        classes = classes_of(cfg, 'mmpretrain')
        highest = max(int(pair[1]) for pair in pairs)
        if classes is not None and highest >= len(classes):
            raise DatasetError(
                f'{path}: label {highest}, but metainfo.classes has {len(classes)} classes. Add the missing classes.'
            )
    check_listed_images(path, folder, names, read)
    check_token_labels(cfg, folder, names)
