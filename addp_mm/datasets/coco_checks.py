# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check COCO annotations before a runner is built."""
import json
from collections.abc import Mapping, Sequence
from logging import WARNING
from math import isfinite
from pathlib import Path

from mmengine.logging import print_log

from addp_mm.datasets.config_parts import classes_of, join, quoted, read_text
from addp_mm.datasets.image_folder import DatasetError, check_folder_exists, check_image_files, missing_files

_NEEDED = {
    'categories': ('id', 'name'),
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area')}
_ADVICE = 'Correct it, or write the file again.'


def check_coco(cfg: Mapping, prefix: dict) -> None:
    """Check the annotation file of a CocoDataset, record by record, and that its images are there and whole.

    Args:
        cfg: Config of the dataset.
        prefix: Its ``data_prefix``.

    Raises:
        DatasetError: Names the file, and the record where one is wrong.
    """
    path = join(cfg, cfg.get('ann_file', ''))
    content = _read_coco(path)
    _check_records(path, content)
    names = [category['name'] for category in content['categories']]
    classes = classes_of(cfg, 'mmdet', cfg['type'])
    absent = [name for name in classes or () if name not in names]
    if absent:
        raise DatasetError(f'{path} lacks the classes {quoted(absent)} of metainfo.classes; its categories are '
                           f'{quoted(names, 20)}. Set metainfo=dict(classes=[…]) to the names in the file.')
    if classes and [name for name in names if name in classes] != list(classes):
        print_log(f'{path}: mmdet numbers classes in the order of the file, metainfo.classes has another; pictures '
                  'would show wrong names. Use the order of the file.', 'current', WARNING)
    _check_references(path, content)
    if _loads_masks(cfg.get('pipeline')):
        _check_masks(path, content, classes)
    folder = join(cfg, prefix.get('img') or prefix.get('img_path') or '')
    wanted = [image['file_name'] for image in content['images']]
    check_folder_exists(folder)
    lost = missing_files(folder, wanted)
    if lost:
        raise DatasetError(f'{folder}: {len(lost)} of {len(wanted)} images of {path} are not there: {quoted(lost)}. '
                           'Complete the folder, or write the data set again.')
    check_image_files(folder, wanted)


def _read_coco(path: Path) -> dict:
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DatasetError(f'{path}: broken or half-written JSON ({error}). Write or fetch it again.') from error
    lacking = [key for key in ('images', 'annotations', 'categories')
               if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if lacking:
        raise DatasetError(f'{path}: not a COCO annotation file, it lacks {quoted(lacking)}.')
    if not content['images']:
        raise DatasetError(f'{path}: lists no images.')
    return content


def _check_records(path: Path, content: dict) -> None:
    """Every record has what mmdet and pycocotools read from it."""
    for section, keys in _NEEDED.items():
        seen = set()
        for index, record in enumerate(content[section]):
            where = f'{path}: {section}[{index}]'
            if not isinstance(record, dict):
                raise DatasetError(f'{where} is {record!r:.40}, not a record. {_ADVICE}')
            where += f' (id {record["id"]})' if 'id' in record else ''
            ignored = section == 'annotations' and record.get('ignore')
            lacking = [key for key in keys if key not in record and not (ignored and key in ('bbox', 'area'))]
            if lacking:
                raise DatasetError(f'{where} lacks {quoted(lacking)}. {_ADVICE}')
            for key in keys:
                if key.endswith('id') and not isinstance(record[key], (int, str)):
                    raise DatasetError(f'{where} has the {key} {record[key]!r:.40}, not a number. {_ADVICE}')
            if section == 'annotations' and not ignored:
                _check_box(where, record)
            if record['id'] in seen:
                raise DatasetError(f'{where}: the id is there twice. Number the {section} anew.')
            seen.add(record['id'])


def _check_box(where: str, annotation: dict) -> None:
    box, area = annotation['bbox'], annotation['area']
    numbers = [*box, area] if isinstance(box, list) else []
    if len(numbers) != 5 or not all(isinstance(number, (int, float)) and isfinite(number) for number in numbers):
        raise DatasetError(f'{where} has the bbox {box!r:.60} and the area {area!r:.20}; a bbox is [x, y, width, '
                           f'height] in pixels, an area a number. {_ADVICE}')


def _check_references(path: Path, content: dict) -> None:
    """Every annotation belongs to an image and a category of the file."""
    for key, owners in (('category_id', 'categories'), ('image_id', 'images')):
        known = {owner['id'] for owner in content[owners]}
        unknown = {annotation[key] for annotation in content['annotations']} - known
        if unknown:
            raise DatasetError(f'{path}: annotations name the {key}s {quoted(sorted(unknown, key=str))}, which '
                               f'"{owners}" lacks. Add them, or write the file again.')


def _loads_masks(pipeline) -> bool:
    """Whether a transform, also one inside another, has ``with_mask=True``."""
    if isinstance(pipeline, Mapping):
        return bool(pipeline.get('with_mask')) or any(map(_loads_masks, pipeline.values()))
    return isinstance(pipeline, (list, tuple)) and any(map(_loads_masks, pipeline))


def _check_masks(path: Path, content: dict, classes: Sequence[str] | None) -> None:
    """Every annotation that mmdet keeps has a mask."""
    used = {category['id'] for category in content['categories'] if classes is None or category['name'] in classes}
    for index, annotation in enumerate(content['annotations']):
        if annotation.get('segmentation') or annotation.get('ignore') or annotation['category_id'] not in used:
            continue
        if annotation['area'] > 0 and min(annotation['bbox'][2:]) >= 1:  # mmdet drops all others
            raise DatasetError(f'{path}: annotations[{index}] (id {annotation["id"]}) has no segmentation, but the '
                               'pipeline loads masks. Add it, or load boxes alone (with_mask=False) and train a '
                               'detector without masks.')
