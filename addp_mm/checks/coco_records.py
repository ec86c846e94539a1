# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check the records of a COCO file one by one: what mmdet and pycocotools read must be there."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from addp_mm.checks.coco_masks import are_numbers, is_number, mask_fault
from addp_mm.checks.dataset_cfg import quoted
from addp_mm.datasets.errors import DatasetError

ADVICE = 'Correct it, or write the file again.'
BOX = 'a bbox is [x, y, width, height] in pixels'
_IDS = ('id', 'image_id', 'category_id')
_CATEGORY = frozenset(('id', 'name'))
_IMAGE = frozenset(('id', 'file_name', 'width', 'height'))
_ANNOTATION = frozenset(_IDS)


def check_records(
    path: Path, content: Mapping, evaluated: bool, sections: Sequence[str] = ('categories', 'images', 'annotations')
) -> None:
    """Check that every record has its entries, that their values are possible, and that ids differ.

    Args:
        path: The file, for messages.
        content: Its content.
        evaluated: Whether a metric reads the file. mmdet's dataset leaves out annotations with
            ``ignore``; pycocotools reads them, too.
        sections: Sections whose records are checked. Defaults to all.

    Raises:
        DatasetError: A record has a fault. The message has its number and id.
    """
    faults: dict[str, Callable[[dict], str]] = {
        'categories': _category_fault,
        'images': _image_fault,
        'annotations': partial(annotation_fault, evaluated=evaluated),
    }
    for section in sections:
        fault_of = faults[section]
        seen = set()
        for index, record in enumerate(content[section]):
            fault = fault_of(record) if isinstance(record, dict) else f'is {record!r:.40}, not a record'
            if not fault and record['id'] in seen:
                fault = f'is not the first: another record has the same id, but the ids of {section} must differ'
            if fault:
                raise DatasetError(f'{where(path, section, index, record)} {fault}. {ADVICE}')
            seen.add(record['id'])
        if section != 'annotations' and len({isinstance(number, str) for number in seen}) > 1:
            raise DatasetError(f'{path}: some ids of {section} are strings, others are numbers. {ADVICE}')


def where(path: Path, section: str, index: int, record: Any) -> str:
    """Name a record: the file, its place in the file and its id."""
    number = f' (id {record["id"]!r:.40})' if isinstance(record, dict) and 'id' in record else ''
    return f'{path}: {section}[{index}]{number}'


def check_references(path: Path, content: Mapping) -> None:
    """Check that every annotation belongs to an image and a category of the file.

    An id may be a number in one place and the same number as a string in another.

    Raises:
        DatasetError: An annotation names an unknown id.
    """
    for key, owners in (('category_id', 'categories'), ('image_id', 'images')):
        known = {owner['id'] for owner in content[owners]}
        unknown = {annotation[key] for annotation in content['annotations']} - known
        if unknown:
            texts = {str(number) for number in known}
            unknown = {number for number in unknown if str(number) not in texts}
        if unknown:
            raise DatasetError(
                f'{path}: annotations name the {key}s {quoted(sorted(unknown, key=str))}, which '
                f'"{owners}" lacks. Add them, or write the file again.'
            )


def check_segmentations(path: Path, content: Mapping) -> None:
    """Check that mmdet and pycocotools can read every segmentation.

    Raises:
        DatasetError: A segmentation has a fault.
    """
    images = {image['id']: image for image in content['images']}
    by_text = {str(number): image for number, image in images.items()}
    relative, polygons = True, False  # whether all coordinates are shares of the image's edges
    for index, annotation in enumerate(content['annotations']):
        number = annotation['image_id']
        image = images.get(number) or by_text[str(number)]
        fault = mask_fault(annotation.get('segmentation'), image)
        if fault:
            raise DatasetError(f'{where(path, "annotations", index, annotation)} has {fault}. {ADVICE}')
        segmentation = annotation.get('segmentation')
        if relative and segmentation and isinstance(segmentation, list):
            polygons = polygons or any(segmentation)
            relative = all(max(polygon, default=0) <= 1 for polygon in segmentation)
    if polygons and relative:
        raise DatasetError(
            f'{path}: every polygon is between 0 and 1, but coordinates are in pixels. Multiply them by width and '
            'height.'
        )


def _missing(record: Mapping, keys: frozenset[str]) -> str:
    if record.keys() >= keys:
        return _id_fault(record)
    return f'lacks {quoted(sorted(keys - record.keys()))}'


def _id_fault(record: Mapping) -> str:
    for key in _IDS:
        number = record.get(key, 0)
        kind = type(number)
        if kind is not int and kind is not str and not (is_number(number) and number == int(number)):
            return f'has the {key} {number!r:.40}, which is not a number'
    return ''


def _category_fault(category: Mapping) -> str:
    fault = _missing(category, _CATEGORY)
    if not fault and not isinstance(category['name'], str):
        return f'has the name {category["name"]!r:.40}, which is not a string'
    return fault


def _image_fault(image: Mapping) -> str:
    fault = _missing(image, _IMAGE)
    if fault:
        return fault
    name, edges = image['file_name'], [image['width'], image['height']]
    if not isinstance(name, str):
        return f'has the file_name {name!r:.60}, which is not a string'
    if not all(is_number(edge) and edge > 0 for edge in edges):
        return f'has the width {edges[0]!r:.20} and the height {edges[1]!r:.20}; both must be numbers of pixels above 0'
    return ''


def annotation_fault(annotation: Mapping, evaluated: bool) -> str:
    """What is wrong with the ids, flags and numbers of an annotation, as the end of a sentence.

    Args:
        annotation: Its record.
        evaluated: As in :func:`check_records`.

    Returns:
        The fault; '' if there is none.
    """
    fault = _missing(annotation, _ANNOTATION)
    if fault:
        return fault
    for key in ('iscrowd', 'ignore'):
        flag = annotation.get(key)
        if flag not in (None, 0, 1):
            return f'has the {key} {flag!r:.40}; it must be 0 or 1'
    if annotation.get('ignore'):
        if not evaluated:
            return ''  # mmdet leaves it out
        if 'bbox' not in annotation:
            region = annotation.get('segmentation')
            return '' if region and region != [[]] else 'has ignore, but neither bbox nor segmentation'
    if 'bbox' not in annotation:
        return "lacks 'bbox'"
    return _box_fault(annotation['bbox'], annotation.get('area'))


def _box_fault(box: Any, area: Any) -> str:
    whole = isinstance(box, list) and len(box) == 4 and are_numbers(box)
    if not whole or not (area is None or is_number(area)):
        return f'has the bbox {box!r:.60} and the area {area!r:.20}; {BOX}, an area is a number'
    if box[2] < 0 or box[3] < 0:
        return f'has the bbox {box!r:.60}, whose size is negative; {BOX}'
    return ''
