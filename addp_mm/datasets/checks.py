# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check what a dataset config points at, before a runner is built."""
import json
from collections.abc import Iterable, Mapping, Sequence
from logging import WARNING
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from PIL import Image

from addp_mm.datasets.image_folder import (
    IMAGE_EXTENSIONS,
    DatasetError,
    check_folder_exists,
    check_image_files,
    check_image_folder,
    list_files,
)
from addp_mm.datasets.scene_writer import MARKER
from addp_mm.wording import first_few

__all__ = ['DatasetError', 'check_dataset_cfg', 'check_image_folder']

_FOLDER_TYPES = ('CustomDataset', 'ImageNet')
_NUM_LABEL_MAPS = 64


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
    name = str(cfg.get('type')).rsplit('.', 1)[-1]
    prefix = cfg.get('data_prefix')
    prefix = dict(img_path=prefix) if isinstance(prefix, str) else dict(prefix or {})
    if name in _FOLDER_TYPES:
        _check_folders(cfg, prefix)
    elif name == 'CocoDataset':
        _check_coco(cfg, prefix)
    elif 'seg_map_path' in prefix:
        _check_label_maps(cfg, name, prefix)


def _check_folders(cfg: Mapping, prefix: dict) -> None:
    split = cfg.get('split', '')
    folder = _join(cfg, prefix.get('img_path') or split)
    extensions = tuple(cfg.get('extensions', IMAGE_EXTENSIONS))
    ann_file = cfg.get('ann_file')
    if not ann_file and split and _join(cfg, f'meta/{split}.txt').is_file():
        ann_file = f'meta/{split}.txt'  # as mmpretrain's ImageNet does
    if ann_file:
        _check_list_file(_join(cfg, ann_file), folder, cfg)
        return
    images = check_image_folder(folder, extensions, _expected(cfg, folder))
    if not cfg.get('with_label', True) or split == 'test':
        return
    found = sorted(path.name for path in folder.iterdir() if path.is_dir())
    filled = {Path(image).parts[0] for image in images}
    empty = [name for name in found if name not in filled]
    if empty:
        raise DatasetError(f'{folder}: the class folders {_quoted(empty)} hold no images. Fill or remove them; if the '
                           'data were only half unpacked, do it again.')
    classes = _classes(cfg, 'mmpretrain', str(cfg['type']))
    if classes is not None:
        _check_class_folders(folder, found, classes)


def _check_class_folders(folder: Path, found: list[str], classes: Sequence[str]) -> None:
    """Folder readers number classes by the sorted folder names, whatever ``classes`` says."""
    if set(found) & set(classes):
        absent, unknown = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
        if absent or unknown:
            raise DatasetError(f'{folder}: the class folders are not those of metainfo.classes (missing: '
                               f'{_quoted(absent)}; not in metainfo: {_quoted(unknown)}). Correct one of them.')
        if list(classes) != found:
            raise DatasetError(f'{folder}: class folders are numbered in alphabetical order, metainfo.classes has '
                               f'another ({_quoted(classes)}). Sort metainfo.classes.')
    elif len(found) != len(classes):
        raise DatasetError(f'{folder}: {len(found)} class folders for {len(classes)} classes. Set metainfo='
                           'dict(classes=[…]) to the names of the folders, or complete the folder.')


def _check_list_file(path: Path, folder: Path, cfg: Mapping) -> None:
    """A text file of ``image`` or ``image label`` lines, as mmpretrain reads it."""
    lines = _read_text(path).splitlines()
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
        classes = _classes(cfg, 'mmpretrain', str(cfg['type']))
        highest = max(int(pair[1]) for pair in pairs)
        if classes is not None and highest >= len(classes):
            raise DatasetError(f'{path}: label {highest}, but metainfo.classes has {len(classes)} classes. Add the '
                               'classes that are lacking.')
    absent = [name for name in names[:1000] if not (folder / name).is_file()]
    if absent:
        raise DatasetError(f'{path} lists images that are not in {folder}: {_quoted(absent)}. Complete the folder or '
                           'correct data_prefix.')
    check_image_files([folder / name for name in names[:1000]])


def _check_coco(cfg: Mapping, prefix: dict) -> None:
    path = _join(cfg, cfg.get('ann_file', ''))
    content = _read_coco(path)
    names = [category['name'] for category in content['categories']]
    classes = _classes(cfg, 'mmdet', str(cfg['type']))
    absent = [name for name in classes or () if name not in names]
    if absent:
        raise DatasetError(f'{path} lacks the classes {_quoted(absent)} of metainfo.classes; its categories are '
                           f'{_quoted(names, 20)}. Set metainfo=dict(classes=[…]) to the names in the file.')
    if classes and [name for name in names if name in classes] != list(classes):
        print_log(f'{path}: mmdet numbers classes in the order of the file, metainfo.classes has another; pictures '
                  'would show wrong names. Use the order of the file.', 'current', WARNING)
    _check_coco_references(path, content)
    folder = _join(cfg, prefix.get('img') or prefix.get('img_path') or '')
    wanted = [image['file_name'] for image in content['images']]
    check_folder_exists(folder)
    files = set(list_files(folder, {Path(name).suffix for name in wanted}))
    lost = [name for name in wanted if str(Path(name)) not in files]
    if lost:
        raise DatasetError(f'{folder}: {len(lost)} of {len(wanted)} images of {path} are not there: {_quoted(lost)}. '
                           'Complete the folder, or write the data set again.')
    check_image_files([folder / name for name in wanted])


def _read_coco(path: Path) -> dict:
    try:
        content = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise DatasetError(f'{path}: broken or half-written JSON ({error}). Write or fetch it again.') from error
    lacking = [key for key in ('images', 'annotations', 'categories')
               if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if lacking:
        raise DatasetError(f'{path}: not a COCO annotation file, it lacks {_quoted(lacking)}.')
    if not content['images']:
        raise DatasetError(f'{path}: lists no images.')
    return content


def _check_coco_references(path: Path, content: dict) -> None:
    """Every annotation belongs to an image and a category of the file."""
    for key, owners in (('category_id', 'categories'), ('image_id', 'images')):
        known = {owner['id'] for owner in content[owners]}
        unknown = {annotation[key] for annotation in content['annotations']} - known
        if unknown:
            raise DatasetError(f'{path}: annotations name the {key}s {_quoted(sorted(unknown))}, which "{owners}" '
                               'lacks. Add them, or write the file again.')


def _check_label_maps(cfg: Mapping, name: str, prefix: dict) -> None:
    folder, label_folder = _join(cfg, prefix.get('img_path')), _join(cfg, prefix['seg_map_path'])
    suffix, label_suffix = cfg.get('img_suffix'), cfg.get('seg_map_suffix', '.png')
    images = check_image_folder(folder, (suffix, ) if suffix else IMAGE_EXTENSIONS, _expected(cfg, folder))
    check_folder_exists(label_folder)
    stems = [image[:-len(suffix)] if suffix else str(Path(image).with_suffix('')) for image in images]
    if cfg.get('ann_file'):
        stems = [line.strip() for line in _read_text(_join(cfg, cfg['ann_file'])).splitlines()]
    # Without a suffix in the config the class has its own, so that the label maps' names are not known here.
    if suffix:
        absent = [stem + label_suffix for stem in stems if not (label_folder / (stem + label_suffix)).is_file()]
        if absent:
            raise DatasetError(f'{label_folder}: {len(absent)} of {len(stems)} label maps are not there: '
                               f'{_quoted(absent)}. Complete the folder, or write the data set again.')
    classes = _classes(cfg, 'mmseg', name)
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


def _classes(cfg: Mapping, scope: str, type_name: str) -> Sequence[str] | None:
    """Classes of the config, else those that the dataset class itself has."""
    classes = (cfg.get('metainfo') or {}).get('classes')
    if isinstance(classes, str):
        return _read_text(Path(classes)).split('\n')
    if classes is not None:
        return classes
    dataset = DATASETS.get(type_name if '.' in type_name else f'{scope}.{type_name}')
    return getattr(dataset, 'METAINFO', {}).get('classes')


def _expected(cfg: Mapping, folder: Path) -> int | None:
    """How many images a folder of FashionScenes should hold, from the note that its writer leaves."""
    root = Path(cfg.get('data_root') or '')
    marker = root / MARKER
    if not marker.is_file() or not folder.is_relative_to(root):
        return None
    try:
        manifest = json.loads(marker.read_text())
    except json.JSONDecodeError as error:
        raise DatasetError(f'{marker}: damaged ({error}). Delete {root} and write the data set again.') from error
    kind, _, split = folder.relative_to(root).as_posix().partition('/')
    return manifest.get(split if kind in ('scenes', 'labels') else f'{kind}_{split}')


def _join(cfg: Mapping, path: str | None) -> Path:
    return Path(cfg.get('data_root') or '') / (path or '')


def _read_text(path: Path) -> str:
    if not path.is_file():
        check_folder_exists(path.parent)
        raise DatasetError(f'{path}: no such annotation file. Check ann_file and data_root in the config.')
    try:
        return path.read_text()
    except UnicodeDecodeError as error:
        raise DatasetError(f'{path}: not a text file ({error}).') from error


def _quoted(names: Iterable, count: int = 5) -> str:
    return first_few(map(repr, names), count)
