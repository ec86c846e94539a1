# Copyright (c) addp_mm contributors. Apache-2.0.
"""Leave faulty annotations of a COCO file out of training, up to a share."""

from collections.abc import Callable, Iterator, Mapping
from logging import WARNING
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from addp_mm.checks.coco_masks import mask_fault
from addp_mm.checks.coco_records import annotation_fault, where
from addp_mm.checks.tolerance import SHARE_KEY
from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.listed.broken_images import num_allowed
from addp_mm.errors import first_few

_NUM_NAMED = 20


def leave_out_faulty(path: Path, content: dict, loads_masks: bool, share: float) -> tuple[dict, int]:
    """Leave out annotations that cannot be right, and name them in one line of the log.

    These are annotations with values that are missing, non-finite or of another type, of an unknown
    image or category, outside of their image, or without an area.

    Args:
        path: The file, for messages.
        content: Its content.
        loads_masks: Whether the pipeline loads the segmentations.
        share: Share of the annotations that may be left out, in addition to ten.

    Returns:
        The content without them, and their number.

    Raises:
        DatasetError: There are more than that, or nothing would be left.
    """
    annotations = content['annotations']
    faults = dict(_faults(content, loads_masks))
    if not faults:
        return content, 0
    named = (f'{where(Path(), "annotations", k, annotations[k])[3:]} {fault}' for k, fault in faults.items())
    words = f'{len(faults)} of {len(annotations)} annotations are faulty: {first_few(named, _NUM_NAMED, "; ")}'
    allowed, left = num_allowed(share, len(annotations)), len(annotations) - len(faults)
    if len(faults) > allowed or not left:
        needed = f' Or allow more with a larger {SHARE_KEY}; {allowed} are allowed now.' if left else ''
        raise DatasetError(f'{path}: {words}. Correct them, or write the file again.{needed}')
    print_log(f'{path}: {words}. They are left out of training.', 'current', WARNING)
    return {**content, 'annotations': [one for k, one in enumerate(annotations) if k not in faults]}, len(faults)


def _faults(content: Mapping, loads_masks: bool) -> Iterator[tuple[int, str]]:
    """Number and fault of each faulty annotation."""
    image_of = _by_id(content['images'])
    category_of = _by_id(content['categories'])
    for number, annotation in enumerate(content['annotations']):
        fault = _fault(annotation, image_of, category_of, loads_masks)
        if fault:
            yield number, fault


def _fault(annotation: Any, image_of: Callable, category_of: Callable, loads_masks: bool) -> str:
    if not isinstance(annotation, dict):
        return f'is {annotation!r:.40}, not a record'
    fault = annotation_fault(annotation, evaluated=False)
    if fault:
        return fault
    for key, owner_of in (('category_id', category_of), ('image_id', image_of)):
        if owner_of(annotation[key]) is None:
            return f'has the {key} {annotation[key]!r:.40}, which the file lacks'
    if annotation.get('ignore'):
        return ''  # mmdet leaves it out
    image = image_of(annotation['image_id'])
    x, y, width, height = annotation['bbox']
    if not width or not height or annotation.get('area') is not None and annotation['area'] <= 0:
        return f'has the bbox {annotation["bbox"]} and the area {annotation.get("area")}: it covers no pixel'
    if x >= image['width'] or y >= image['height'] or x + width <= 0 or y + height <= 0:
        size = f'{image["width"]} wide and {image["height"]} high'
        return f'has the bbox {annotation["bbox"]} outside of its image, which is {size}'
    if loads_masks or annotation.get('area') is None:
        fault = mask_fault(annotation.get('segmentation'), image)
        return f'has {fault}' if fault else ''
    return ''


def _by_id(records: Any) -> Callable[[Any], Any]:
    """Finds a record by its id, also by the same number as a string."""
    by_id = {one['id']: one for one in records}
    by_text = {str(number): one for number, one in by_id.items()}
    return lambda number: by_id.get(number) or by_text.get(str(number))
