# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check label maps of semantic segmentation before a runner is built."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from addp_mm.checks.config_parts import classes_of, dataset_class, default_of, expected_images, join, quoted, read_text
from addp_mm.checks.image_folders import IMAGE_EXTENSIONS, check_image_files, check_image_folder, missing_files, spread
from addp_mm.checks.image_reading import reading_of
from addp_mm.config.type_names import type_name
from addp_mm.datasets.errors import DatasetError, check_folder_exists

_NUM_LABELS_READ = 64  # label maps whose values are looked at


def check_label_maps(cfg: Mapping, prefix: dict) -> None:
    """Check images and label maps of a dataset of mmseg's: pairs of one size, whole files, labels that have a class.

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
    reading = reading_of(cfg.get('pipeline'))
    images = _images(cfg, folder, suffix, reading.decode)
    if suffix and cls is not None:
        _check_case(folder, images, suffix)
    check_folder_exists(label_folder)
    maps = {_stem(image, suffix) + label_suffix: image for image in images}
    absent = missing_files(label_folder, maps)
    if absent and suffix:
        raise DatasetError(
            f'{label_folder}: {len(absent)} of {len(maps)} label maps are not there: {quoted(absent)}. '
            'Complete the folder, or write the data set again.'
        )
    for name in absent:  # how the class names them is not known here
        del maps[name]
    classes = classes_of(cfg, 'mmseg', kind)
    if not classes:
        raise DatasetError(f'{type_name(kind)} on {folder}: no classes. Set metainfo=dict(classes=[…], palette=[…]).')
    if _known_format(label_suffix):
        check_image_files(label_folder, list(maps), 'label maps', _label_values)
        for name, image in spread(list(maps.items())):
            _check_pair(label_folder / name, folder / image, reading.size)
        # a class that has classes of its own turns their labels into those of the config
        own = getattr(dataset_class(kind, 'mmseg'), 'METAINFO', {}).get('classes') or ()
        _check_labels(cfg, cls, label_folder, list(maps), max(len(classes), len(own)))


def _images(cfg: Mapping, folder: Path, suffix: str | None, read: Callable[[bytes], object]) -> list[str]:
    """Paths of the images, relative to ``folder``; all are there and whole."""
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
            raise DatasetError(
                f'{path}: {len(absent)} of the {len(images)} images it lists are not in {folder}: '
                f'{quoted(absent)}. Complete the folder, or correct data_prefix or img_suffix.'
            )
        check_image_files(folder, images, read=read)
        return images
    return check_image_folder(folder, (suffix,) if suffix else IMAGE_EXTENSIONS, expected_images(cfg, folder), read)


def _check_case(folder: Path, images: Sequence[str], suffix: str) -> None:
    """No image is left out by mmseg, which compares suffixes letter by letter."""
    others = [image for image in images if not image.endswith(suffix)]
    if others:
        raise DatasetError(
            f'{folder}: {len(others)} of {len(images)} images end in other letters, small or capital, '
            f'than img_suffix={suffix!r}, and mmseg would leave them out: {quoted(others)}. Rename '
            'them, or set img_suffix.'
        )


def _stem(image: str, suffix: str | None) -> str:
    return image[: -len(suffix)] if suffix else str(Path(image).with_suffix(''))


def _check_pair(path: Path, picture: Path, size: Callable[[Path], tuple[int, int] | None]) -> None:
    """A label map has one label for each pixel of its picture."""
    try:
        with Image.open(path) as label_map:
            channels, (width, height) = label_map.getbands(), label_map.size
    except (OSError, SyntaxError) as error:
        raise DatasetError(f'{path}: the label map cannot be read ({error}). Replace it.') from error
    if len(channels) > 1:
        raise DatasetError(
            f'{path}: the label map has the channels {", ".join(channels)}; it needs to have one, whose '
            'values are the numbers of classes. Turn its colours into these.'
        )
    found = size(picture)
    if found not in (None, (height, width)):
        raise DatasetError(
            f'{path}: the label map is {width} wide and {height} high, but its picture {picture} is '
            f'{found[1]} wide and {found[0]} high, its EXIF orientation applied. Write the label map in '
            'that size.'
        )


def _known_format(suffix: str) -> bool:
    """Whether Pillow reads label maps of this end; a pipeline may read others in its own way."""
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
    for name in maps[:: max(1, len(maps) // _NUM_LABELS_READ)]:
        path = folder / name
        values = _label_values(path.read_bytes())
        labels = values[values != cfg.get('ignore_index', 255)]
        if reduce_zero_label:
            labels = labels[labels != 0] - 1
        if len(labels) and labels.max() >= num_classes:
            raise DatasetError(
                f'{path}: label {labels.max() + reduce_zero_label}, but there are {num_classes} classes '
                f'(reduce_zero_label={reduce_zero_label}). Add those that are lacking to '
                'metainfo.classes, or correct the label map.'
            )
