# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check label maps of semantic segmentation before a runner is built."""
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from addp_mm.datasets.config_parts import classes_of, expected_images, join, quoted, read_text
from addp_mm.datasets.image_folder import IMAGE_EXTENSIONS, DatasetError, check_folder_exists, check_image_folder

_NUM_LABEL_MAPS = 64


def check_label_maps(cfg: Mapping, name: str, prefix: dict) -> None:
    folder, label_folder = join(cfg, prefix.get('img_path')), join(cfg, prefix['seg_map_path'])
    suffix, label_suffix = cfg.get('img_suffix'), cfg.get('seg_map_suffix', '.png')
    images = check_image_folder(folder, (suffix, ) if suffix else IMAGE_EXTENSIONS, expected_images(cfg, folder))
    check_folder_exists(label_folder)
    stems = [image[:-len(suffix)] if suffix else str(Path(image).with_suffix('')) for image in images]
    if cfg.get('ann_file'):
        stems = [line.strip() for line in read_text(join(cfg, cfg['ann_file'])).splitlines()]
    # Without a suffix in the config the class has its own, so that the label maps' names are not known here.
    if suffix:
        absent = [stem + label_suffix for stem in stems if not (label_folder / (stem + label_suffix)).is_file()]
        if absent:
            raise DatasetError(f'{label_folder}: {len(absent)} of {len(stems)} label maps are not there: '
                               f'{quoted(absent)}. Complete the folder, or write the data set again.')
    classes = classes_of(cfg, 'mmseg', name)
    if not classes:
        raise DatasetError(f'{name} on {folder}: no classes. Set metainfo=dict(classes=[…], palette=[…]).')
    step = max(1, len(stems) // _NUM_LABEL_MAPS)
    for stem in stems[::step]:
        path = label_folder / (stem + label_suffix)
        if path.is_file():
            # Where the class decides, the more tolerant reading is taken.
            reduce_zero_label = bool(cfg.get('reduce_zero_label', name != 'BaseSegDataset'))
            _check_label_map(path, len(classes), reduce_zero_label, cfg.get('ignore_index', 255))


def _check_label_map(path: Path, num_classes: int, reduce_zero_label: bool, ignore_index: int) -> None:
    try:
        with Image.open(path) as image:
            values = np.unique(np.asarray(image)).astype(int)
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f'{path}: cannot be read as a label map ({error}). Write it again.') from error
    labels = values[values != ignore_index]
    if reduce_zero_label:
        labels = labels[labels != 0] - 1
    if len(labels) and labels.max() >= num_classes:
        raise DatasetError(f'{path}: label {labels.max() + reduce_zero_label}, but metainfo.classes has {num_classes} '
                           f'classes (reduce_zero_label={reduce_zero_label}). Add the classes that are lacking, or '
                           'correct the label map.')


