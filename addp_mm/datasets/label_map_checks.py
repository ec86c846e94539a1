# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check label maps of semantic segmentation before a runner is built."""
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from addp_mm.datasets.config_parts import (
    classes_of,
    dataset_class,
    default_of,
    expected_images,
    join,
    quoted,
    read_text,
)
from addp_mm.datasets.image_folder import (
    IMAGE_EXTENSIONS,
    DatasetError,
    check_folder_exists,
    check_image_files,
    check_image_folder,
    list_files,
    missing_files,
)
from addp_mm.type_names import type_name

_NUM_LABELS_READ = 64  # label maps whose values are looked at


def check_label_maps(cfg: Mapping, prefix: dict) -> None:
    """Check images and label maps of a dataset of mmseg's: pairs, whole files, labels that have a class.

    Suffixes that the config does not say are those of the class.

    Args:
        cfg: Config of the dataset.
        prefix: Its ``data_prefix``, with ``seg_map_path``.

    Raises:
        DatasetError: Names the file or folder.
    """
    kind = cfg.get('type')
    cls = dataset_class(kind, 'mmseg')
    if getattr(getattr(cls, 'load_data_list', None), '__qualname__', '') != 'BaseSegDataset.load_data_list':
        cls = None  # it may pair files otherwise
    suffix = cfg.get('img_suffix', default_of(cls, 'img_suffix'))
    label_suffix = cfg.get('seg_map_suffix', default_of(cls, 'seg_map_suffix') or '.png')
    folder, label_folder = join(cfg, prefix.get('img_path')), join(cfg, prefix['seg_map_path'])
    stems = _stems(cfg, folder, suffix)
    check_folder_exists(label_folder)
    maps = [stem + label_suffix for stem in stems]
    absent = missing_files(label_folder, maps)
    if absent and suffix:
        raise DatasetError(f'{label_folder}: {len(absent)} of {len(maps)} label maps are not there: {quoted(absent)}. '
                           'Complete the folder, or write the data set again.')
    if absent:  # how the class names them is not known here
        lost = set(absent)
        maps = [name for name in maps if name not in lost]
    classes = classes_of(cfg, 'mmseg', kind)
    if not classes:
        raise DatasetError(f'{type_name(kind)} on {folder}: no classes. Set metainfo=dict(classes=[…], palette=[…]).')
    if _known_format(label_suffix):
        check_image_files(label_folder, maps, 'label maps', _label_values)
        # a class that has classes of its own turns their labels into those of the config
        own = getattr(dataset_class(kind, 'mmseg'), 'METAINFO', {}).get('classes') or ()
        _check_labels(cfg, cls, label_folder, maps, max(len(classes), len(own)))


def _stems(cfg: Mapping, folder: Path, suffix: str | None) -> list[str]:
    """Names of the images, relative to ``folder`` and without ``suffix``; all are there and whole."""
    ann_file = cfg.get('ann_file')
    if suffix and ann_file and not join(cfg, ann_file).is_dir():
        path = join(cfg, ann_file)
        stems = [line.strip() for line in read_text(path).splitlines()]
        if not stems:
            raise DatasetError(f'{path}: the list of images is empty.')
        check_folder_exists(folder)
        images = [stem + suffix for stem in stems]
        absent = missing_files(folder, images)
        if absent:
            raise DatasetError(f'{path}: {len(absent)} of the {len(images)} images it lists are not in {folder}: '
                               f'{quoted(absent)}. Complete the folder, or correct data_prefix or img_suffix.')
        if _known_format(suffix):
            check_image_files(folder, images)
        return stems
    if suffix and not _known_format(suffix):
        check_folder_exists(folder)
        return [name[:-len(suffix)] for name in list_files(folder, (suffix, ))]
    images = check_image_folder(folder, (suffix, ) if suffix else IMAGE_EXTENSIONS, expected_images(cfg, folder))
    return [image[:-len(suffix)] if suffix else str(Path(image).with_suffix('')) for image in images]


def _known_format(suffix: str) -> bool:
    """Whether Pillow reads files of this end; a pipeline may read others in its own way."""
    return Path(f'name{suffix}').suffix.lower() in Image.registered_extensions()


def _label_values(content: bytes) -> np.ndarray:
    """Values that occur in a label map, ascending.

    Raises:
        ValueError: It is damaged.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.unique(np.asarray(image)).astype(int)
    except (OSError, SyntaxError) as error:
        raise ValueError(str(error)) from error


def _check_labels(cfg: Mapping, cls: type | None, folder: Path, maps: Sequence[str], num_classes: int) -> None:
    """Labels in some of the maps have a class."""
    reduce_zero_label = cfg.get('reduce_zero_label', default_of(cls, 'reduce_zero_label'))
    # Where the class decides in a way that cannot be read, the more tolerant reading is taken.
    reduce_zero_label = True if reduce_zero_label is None else bool(reduce_zero_label)
    for name in maps[::max(1, len(maps) // _NUM_LABELS_READ)]:
        path = folder / name
        values = _label_values(path.read_bytes())
        labels = values[values != cfg.get('ignore_index', 255)]
        if reduce_zero_label:
            labels = labels[labels != 0] - 1
        if len(labels) and labels.max() >= num_classes:
            raise DatasetError(f'{path}: label {labels.max() + reduce_zero_label}, but there are {num_classes} classes '
                               f'(reduce_zero_label={reduce_zero_label}). Add those that are lacking to '
                               'metainfo.classes, or correct the label map.')
