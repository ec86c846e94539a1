# Copyright (c) addp_mm contributors. Apache-2.0.
"""Repair COCO annotations that mmdet or pycocotools would read wrongly, or not at all."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from addp_mm.checks.coco_masks import box_polygon, mask_area, mask_box, usable_polygons
from addp_mm.checks.coco_use import CocoUse

NO_MASK = 'no_mask'  # the key of an object that counts for boxes and not for masks
_WORDS = {
    'left_out': 'faulty annotations (left out of training)',
    'ids': 'annotation ids that are 0 or strings (all ids are numbered from 1)',
    'references': 'ids of images or categories as a number in one place and a string in another (now the same)',
    'iscrowd': 'annotations without iscrowd (taken as 0)',
    'ignore': 'annotations with ignore (set to iscrowd=1, since pycocotools overwrites ignore)',
    'area': 'annotations without area (computed from the segmentation, or else from the bbox)',
    'bbox': 'ignored annotations without bbox (computed from the segmentation)',
    'polygons': 'annotations with polygons that enclose nothing beside others (these polygons are left out)',
    'regions': 'ignored or crowd regions without a mask (the mask is that of the box)',
    'masks': 'objects without a mask, such as a polygon of two points (the box counts, the mask is not scored)',
    'ignored': 'objects without a mask, such as a polygon of two points (ignored)',
}


def repair_annotations(content: Mapping[str, Any], use: CocoUse) -> tuple[dict, Counter]:
    """Repair what has one right value.

    Args:
        content: Content of an annotation file whose records have no fault. It is not changed.
        use: What the run does with the file. A file that only trains needs fewer repairs.

    Returns:
        The repaired content, which shares the other records, and the number of repairs by kind.
    """
    counts: Counter = Counter()
    annotations, repaired = content['annotations'], []
    renumber = use.evaluated and sum(bad := [_bad_id(one['id']) for one in annotations])
    if renumber:
        counts['ids'] = sum(bad)
    twins = {key: _twins(content, key, owner) for key, owner in (('image_id', 'images'), ('category_id', 'categories'))}
    for number, annotation in enumerate(annotations, 1):
        changes = {key: twin[annotation[key]] for key, twin in twins.items() if annotation[key] in twin}
        counts['references'] += len(changes)
        if renumber:
            changes['id'] = number
        if use.evaluated:
            _repair_flags(annotation, changes, counts)
        if use.evaluated and use.masks:
            _repair_mask(annotation, changes, counts, use.reads_marks)
        if annotation.get('area') is None and (use.evaluated or not annotation.get('ignore')):
            box = changes.get('bbox') or annotation['bbox']
            changes['area'] = mask_area(annotation.get('segmentation')) or box[2] * box[3]
            counts['area'] += 1
        repaired.append({**annotation, **changes} if changes else annotation)
    return {**content, 'annotations': repaired}, +counts


def repairs_in_words(counts: Mapping[str, int]) -> str:
    """The repairs of a file, for a log."""
    return ', '.join(f'{_WORDS[kind]}: {count}' for kind, count in counts.items())


def _bad_id(number: Any) -> bool:
    """Whether pycocotools cannot tell a match with this annotation from no match."""
    return isinstance(number, str) or number == 0


def _twins(content: Mapping, key: str, owners: str) -> dict:
    """Ids that annotations name as '1' where the owner has 1, or the other way round."""
    known = {owner['id'] for owner in content[owners]}
    unknown = {annotation[key] for annotation in content['annotations']} - known
    by_text = {str(number): number for number in known} if unknown else {}
    return {number: by_text[str(number)] for number in unknown if str(number) in by_text}


def _repair_flags(annotation: Mapping, changes: dict, counts: Counter) -> None:
    if annotation.get('ignore'):
        if not annotation.get('iscrowd'):
            changes['iscrowd'] = 1
            counts['ignore'] += 1
        if 'bbox' not in annotation:
            changes['bbox'] = mask_box(annotation.get('segmentation'))
            counts['bbox'] += 1
    elif annotation.get('iscrowd') is None:
        changes['iscrowd'] = 0
        counts['iscrowd'] += 1


def _repair_mask(annotation: Mapping, changes: dict, counts: Counter, reads_marks: bool) -> None:
    """Give an object without a mask that of its box: the metric fails on a polygon of two points.

    The object is marked, so that :mod:`addp_mm.compat.coco_evaluation` leaves it out of the scores
    of masks. If the metric does not know the mark, the object is ignored.
    """
    segmentation = annotation.get('segmentation')
    usable = usable_polygons(segmentation)
    if usable is segmentation and usable is not None:
        return
    polygon = box_polygon(changes.get('bbox') or annotation['bbox'])
    is_marked = changes.get('iscrowd', annotation.get('iscrowd')) or annotation.get(NO_MASK)
    if not usable and is_marked and _is_polygon(segmentation, polygon[0]):
        return  # repaired before, and the box encloses nothing either
    changes['segmentation'] = usable or polygon
    if usable:
        counts['polygons'] += 1
    elif changes.get('iscrowd', annotation.get('iscrowd')):
        counts['regions'] += 1
    elif reads_marks:
        changes[NO_MASK] = 1
        counts['masks'] += 1
    else:
        changes['iscrowd'] = 1
        counts['ignored'] += 1


def _is_polygon(segmentation: Any, polygon: Sequence[float]) -> bool:
    """Whether a segmentation is this one polygon."""
    single = isinstance(segmentation, list) and len(segmentation) == 1
    return single and list(segmentation[0]) == list(map(float, polygon))
