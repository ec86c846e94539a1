# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check label maps of semantic segmentation before a runner is built."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine.registry import DATASETS
from PIL import Image

from addp_mm.checks.dataset_cfg import (
    classes_of,
    dataset_class,
    default_of,
    join,
    own_classes,
    prefix_of,
    quoted,
    read_text,
)
from addp_mm.checks.image_folders import (
    IMAGE_EXTENSIONS,
    check_image_folder,
    check_listed_images,
    missing_files,
    spread,
)
from addp_mm.checks.image_reading import reading_of
from addp_mm.checks.label_counts import check_label_counts, count_labels
from addp_mm.checks.tolerance import file_time_limit, is_tolerated
from addp_mm.checks.type_lookup import is_kind
from addp_mm.config.type_names import type_name
from addp_mm.datasets.errors import BrokenSampleError, DatasetError, check_folder_exists
from addp_mm.errors import first_few


def check_label_maps(cfg: Mapping) -> None:
    """Check images and label maps of a dataset of mmsegmentation.

    Each image has a label map of its size, all files are complete, and every label has a class. If
    the config has no suffixes, those of the dataset class are used.

    Args:
        cfg: Config of the dataset; its ``data_prefix`` has ``seg_map_path``.

    Raises:
        DatasetError: Something is wrong. The message names the file or folder.
    """
    prefix, cls = prefix_of(cfg), dataset_class(cfg, 'mmseg')
    if not is_kind(cls, DATASETS, 'mmseg.datasets', 'BaseSegDataset', keeping='load_data_list'):
        cls = None  # a subclass may pair files in another way
    suffix = cfg.get('img_suffix', default_of(cls, 'img_suffix'))
    label_suffix = cfg.get('seg_map_suffix', default_of(cls, 'seg_map_suffix') or '.png')
    folder, label_folder = join(cfg, prefix.get('img_path')), join(cfg, prefix['seg_map_path'])
    reading = reading_of(cfg.get('pipeline'))
    images = _images(cfg, folder, suffix, reading.decode)
    if suffix and cls is not None:
        _check_case(folder, images, suffix)
    check_folder_exists(label_folder)
    maps = {_stem(image, suffix) + label_suffix: image for image in images}
    missing = missing_files(label_folder, maps)
    if missing and suffix:
        words = (
            f'{label_folder}: {len(missing)} of {len(maps)} label maps do not exist: {quoted(missing)}. '
            'Complete the folder, or write the dataset again.'
        )
        if not is_tolerated(words, len(missing), len(maps)):
            raise DatasetError(words)
    for name in missing:  # without a suffix, the names of the label maps are unknown
        del maps[name]
    classes = classes_of(cfg, 'mmseg')
    if not classes:
        kind = type_name(cfg.get('type'))
        raise DatasetError(f'{kind} on {folder}: no classes. Set metainfo=dict(classes=[…], palette=[…]).')
    palette = (cfg.get('metainfo') or {}).get('palette')
    if palette and len(palette) != len(classes) and not own_classes(cfg, 'mmseg'):
        raise DatasetError(
            f'metainfo of the dataset on {folder} has {len(palette)} colours in palette, but {len(classes)} classes. '
            'Give each class a colour, or leave palette out.'
        )
    if Path(f'name{label_suffix}').suffix.lower() not in Image.registered_extensions():
        return  # only the pipeline can read them
    # a class with its own classes converts their labels to those of the config
    num_classes = max(len(classes), len(own_classes(cfg, 'mmseg') or ()))
    # if the default cannot be read, the value that refuses fewer labels is used
    reduced = cfg.get('reduce_zero_label', default_of(cls, 'reduce_zero_label'))
    ignore_index = cfg.get('ignore_index', 255)
    counts: Counter = Counter()
    damaged = []
    for name, image in spread(list(maps.items())):
        try:
            values = _read_map(label_folder / name, folder / image, reading.size)
        except BrokenSampleError as error:
            damaged.append(str(error))
            continue
        found = count_labels(values)
        counts.update(found)
        highest = max((label for label in found if label != ignore_index), default=0)
        _check_highest(label_folder / name, highest, num_classes, reduced is None or bool(reduced))
    _check_damaged(damaged, len(maps))
    if counts and reduced is not None and num_classes == len(classes):
        training = not cfg.get('test_mode')
        check_label_counts(label_folder, counts, classes, bool(reduced), ignore_index, training)


def _images(cfg: Mapping, folder: Path, suffix: str | None, read: Callable[[bytes], object]) -> list[str]:
    """Paths of the images, relative to ``folder``; all exist and are complete."""
    ann_file = cfg.get('ann_file')
    if not suffix or not ann_file or join(cfg, ann_file).is_dir():
        extensions = (suffix,) if suffix else IMAGE_EXTENSIONS
        return check_image_folder(folder, extensions, read)
    path = join(cfg, ann_file)
    images = [line.strip() + suffix for line in read_text(path).splitlines()]
    check_listed_images(path, folder, images, read)
    return images


def _check_case(folder: Path, images: Sequence[str], suffix: str) -> None:
    """Every image has the suffix in the same case: mmseg distinguishes upper and lower case."""
    others = [image for image in images if not image.endswith(suffix)]
    if others:
        raise DatasetError(
            f'{folder}: the suffix of {len(others)} of {len(images)} images differs from img_suffix={suffix!r} in '
            f'upper or lower case, and mmseg would skip them: {quoted(others)}. Rename them, or set '
            'img_suffix.'
        )


def _stem(image: str, suffix: str | None) -> str:
    return image[: -len(suffix)] if suffix else str(Path(image).with_suffix(''))


def _read_map(path: Path, image: Path, size: Callable[[Path], tuple[int, int] | None]) -> np.ndarray:
    """The labels of a map, (H, W): one for each pixel of its image."""
    try:
        with file_time_limit(), Image.open(path) as label_map:
            channels, values = label_map.getbands(), np.asarray(label_map)
    except (OSError, SyntaxError) as error:
        raise BrokenSampleError(f'{path}: the label map cannot be read ({error}). Replace it.') from error
    if len(channels) > 1:
        raise DatasetError(
            f'{path}: the label map has the channels {", ".join(channels)}; it must have one, whose '
            'values are class indices. Convert its colours to class indices.'
        )
    (height, width), found = values.shape, size(image)
    if found not in (None, (height, width)):
        raise DatasetError(
            f'{path}: the label map is {width} wide and {height} high, but its image {image} is '
            f'{found[1]} wide and {found[0]} high with its EXIF orientation applied. Write the label map in that size.'
        )
    return values


def _check_damaged(damaged: Sequence[str], num_maps: int) -> None:
    """Few enough label maps are damaged."""
    if not damaged:
        return
    words = damaged[0]
    if len(damaged) > 1:
        words = f'{len(damaged)} label maps cannot be read: {first_few(damaged, 5)}'
    if not is_tolerated(words, len(damaged), num_maps):
        raise BrokenSampleError(words)


def _check_highest(path: Path, highest: int, num_classes: int, reduce_zero_label: bool) -> None:
    """Every label has a class; with ``reduce_zero_label``, 0 has none and 1 is the first class."""
    if highest - reduce_zero_label < num_classes:
        return
    remedy = 'Add the missing classes to metainfo.classes, or correct the label map.'
    if highest == num_classes:
        remedy += ' If 0 means unlabelled and 1 is the first class, set reduce_zero_label=True in the dataset.'
    raise DatasetError(
        f'{path}: label {highest}, but there are {num_classes} classes (reduce_zero_label={reduce_zero_label}). '
        f'{remedy}'
    )
