# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check COCO annotations before a runner is built."""

import json
from collections.abc import Mapping, Sequence
from logging import WARNING
from math import isfinite
from pathlib import Path

from mmengine.logging import print_log
from mmengine.registry import TRANSFORMS

from addp_mm.checks.dataset_cfg import classes_of, join, prefix_of, quoted, read_text, transforms_of
from addp_mm.checks.image_folders import check_listed_images, spread
from addp_mm.checks.image_reading import ImageReading, reading_of
from addp_mm.checks.type_lookup import is_kind
from addp_mm.datasets.errors import DatasetError

_NEEDED = {
    'categories': ('id', 'name'),
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
}
_ADVICE = 'Correct it, or write the file again.'
_MAX_BEYOND = 0.05  # if a larger share of the boxes exceeds their images, they are not [x, y, width, height]
_BOX = 'a bbox is [x, y, width, height] in pixels'


def check_coco(cfg: Mapping) -> None:
    """Check the annotation file of a CocoDataset, record by record, and its images.

    Args:
        cfg: Config of the dataset.

    Raises:
        DatasetError: Something is wrong. The message names the file and the record.
    """
    path = join(cfg, cfg.get('ann_file', ''))
    content = _read_coco(path)
    _check_records(path, content)
    classes = classes_of(cfg, 'mmdet')
    _check_classes(path, [category['name'] for category in content['categories']], classes)
    _check_references(path, content)
    transforms = list(transforms_of(cfg.get('pipeline')))
    if any(transform.get('with_mask') for transform in transforms):
        _check_masks(path, content, classes)
    labelled = any(
        is_kind(transform.get('type'), TRANSFORMS, 'mmcv.transforms', 'LoadAnnotations') for transform in transforms
    )
    if labelled and not content['annotations'] and not cfg.get('test_mode'):
        raise DatasetError(
            f'{path}: "annotations" is empty, so that there is no training data. Write the file again, or '
            'set ann_file to another file.'
        )
    prefix = prefix_of(cfg)
    folder = join(cfg, prefix.get('img') or prefix.get('img_path') or '')
    _check_images(path, content['images'], folder, reading_of(cfg.get('pipeline')))
    _check_boxes_fit(path, content)  # after the image sizes, which this check uses


def _read_coco(path: Path) -> dict:
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DatasetError(f'{path}: broken or incomplete JSON ({error}). Write or download it again.') from error
    sections = content if isinstance(content, dict) else {}
    missing = [key for key in ('images', 'annotations', 'categories') if not isinstance(sections.get(key), list)]
    if missing:
        raise DatasetError(f'{path}: not a COCO annotation file, it lacks {quoted(missing)}. Check ann_file.')
    if not content['images']:
        raise DatasetError(f'{path}: "images" is empty. Write the file again, or set ann_file to another file.')
    return content


def _check_records(path: Path, content: dict) -> None:
    """Every record has the entries that mmdet and pycocotools read."""
    for section, keys in _NEEDED.items():
        seen = set()
        for index, record in enumerate(content[section]):
            if not isinstance(record, dict):
                raise DatasetError(f'{path}: {section}[{index}] is {record!r:.40}, not a record. {_ADVICE}')
            where = _where(path, section, index, record)
            ignored = section == 'annotations' and record.get('ignore')
            missing = [key for key in keys if key not in record and not (ignored and key in ('bbox', 'area'))]
            if missing:
                raise DatasetError(f'{where} lacks {quoted(missing)}. {_ADVICE}')
            for key in keys:
                if key.endswith('id') and not isinstance(record[key], int | str):
                    raise DatasetError(f'{where} has the {key} {record[key]!r:.40}, which is not a number. {_ADVICE}')
            if section == 'images':
                _check_image(where, record)
            elif section == 'annotations' and not ignored:
                _check_box(where, record)
            if record['id'] in seen:
                raise DatasetError(f'{where}: another record has the same id. The ids of {section} must differ.')
            seen.add(record['id'])


def _where(path: Path, section: str, index: int, record: dict) -> str:
    return f'{path}: {section}[{index}]' + (f' (id {record["id"]})' if 'id' in record else '')


def _check_image(where: str, image: dict) -> None:
    name, edges = image['file_name'], [image['width'], image['height']]
    if not isinstance(name, str):
        raise DatasetError(f'{where} has the file_name {name!r:.60}, which is not a string. {_ADVICE}')
    if not all(isinstance(edge, int | float) and edge > 0 for edge in edges):
        raise DatasetError(
            f'{where} has the width {edges[0]!r:.20} and the height {edges[1]!r:.20}; both must be numbers '
            f'of pixels. {_ADVICE}'
        )


def _check_box(where: str, annotation: dict) -> None:
    box, area = annotation['bbox'], annotation['area']
    numbers = [*box, area] if isinstance(box, list) else []
    if len(numbers) != 5 or not all(isinstance(number, int | float) and isfinite(number) for number in numbers):
        raise DatasetError(
            f'{where} has the bbox {box!r:.60} and the area {area!r:.20}; {_BOX}, an area is a number. {_ADVICE}'
        )


def _check_classes(path: Path, names: Sequence[str], classes: Sequence[str] | None) -> None:
    missing = [name for name in classes or () if name not in names]
    if missing:
        raise DatasetError(
            f'{path} lacks the classes {quoted(missing)} of metainfo.classes; its categories are '
            f'{quoted(names, 20)}. Set metainfo=dict(classes=[…]) to the names in the file.'
        )
    if classes and [name for name in names if name in classes] != list(classes):
        print_log(
            f'{path}: mmdet numbers classes in the order of the file, but metainfo.classes has another order, so that '
            'drawn images would show wrong names. Use the order of the file.',
            'current',
            WARNING,
        )


def _check_references(path: Path, content: dict) -> None:
    """Every annotation belongs to an image and a category of the file."""
    for key, owners in (('category_id', 'categories'), ('image_id', 'images')):
        known = {owner['id'] for owner in content[owners]}
        unknown = {annotation[key] for annotation in content['annotations']} - known
        if unknown:
            raise DatasetError(
                f'{path}: annotations name the {key}s {quoted(sorted(unknown, key=str))}, which '
                f'"{owners}" lacks. Add them, or write the file again.'
            )


def _check_images(path: Path, images: Sequence[dict], folder: Path, reading: ImageReading) -> None:
    """Images exist and are complete; up to 2,000 of them have the size given in the file."""
    check_listed_images(path, folder, [image['file_name'] for image in images], reading.decode)
    for index, record in spread(list(enumerate(images))):
        file, width, height = folder / record['file_name'], record['width'], record['height']
        found = reading.size(file)
        if found not in (None, (height, width)):
            raise DatasetError(
                f'{_where(path, "images", index, record)} has the width {width} and the height {height}, '
                f'but {file} is {found[1]} wide and {found[0]} high with its EXIF orientation applied. {_ADVICE}'
            )


def _check_boxes_fit(path: Path, content: dict) -> None:
    """Boxes are in pixels, and few exceed their image by more than one pixel."""
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    boxes = [(index, record) for index, record in enumerate(content['annotations']) if not record.get('ignore')]
    if boxes and all(max(record['bbox']) <= 1 for _, record in boxes):
        raise DatasetError(f'{path}: every bbox is between 0 and 1, but {_BOX}. Multiply them by width and height.')
    beyond = [(index, record) for index, record in boxes if _reaches_beyond(record['bbox'], *sizes[record['image_id']])]
    if not beyond:
        return
    index, record = beyond[0]
    width, height = sizes[record['image_id']]
    words = (
        f'{_where(path, "annotations", index, record)} has the bbox {record["bbox"]}, which exceeds its image '
        f'of width {width} and height {height}. So do {len(beyond)} of {len(boxes)} boxes; {_BOX}.'
    )
    if len(beyond) > _MAX_BEYOND * len(boxes):
        raise DatasetError(f'{words} {_ADVICE}')
    print_log(f'{words} mmdet clips them.', 'current', WARNING)


def _reaches_beyond(box: Sequence[float], width: float, height: float) -> bool:
    return box[0] + box[2] > width + 1 or box[1] + box[3] > height + 1


def _check_masks(path: Path, content: dict, classes: Sequence[str] | None) -> None:
    """Every annotation that mmdet keeps has a mask."""
    used = {category['id'] for category in content['categories'] if classes is None or category['name'] in classes}
    for index, annotation in enumerate(content['annotations']):
        if annotation.get('segmentation') or annotation.get('ignore') or annotation['category_id'] not in used:
            continue
        if annotation['area'] > 0 and min(annotation['bbox'][2:]) >= 1:  # mmdet drops all others
            raise DatasetError(
                f'{_where(path, "annotations", index, annotation)} has no segmentation, but the pipeline loads masks. '
                'Add it, or set with_mask=False and train a detector without masks.'
            )
