# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check COCO annotations before a runner is built."""

from collections import Counter
from collections.abc import Mapping, Sequence
from logging import WARNING
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log
from mmengine.registry import TRANSFORMS

from addp_mm.checks.coco_filter import check_filter, check_objects, is_trained, warn_without_objects
from addp_mm.checks.coco_left_out import leave_out_faulty
from addp_mm.checks.coco_masks import usable_polygons
from addp_mm.checks.coco_reading import collector_paused, read_coco
from addp_mm.checks.coco_records import ADVICE, BOX, check_records, check_references, check_segmentations, where
from addp_mm.checks.coco_repairs import repair_annotations
from addp_mm.checks.coco_use import CocoUse
from addp_mm.checks.dataset_cfg import classes_of, join, prefix_of, quoted, transforms_of
from addp_mm.checks.image_folders import check_listed_images, spread
from addp_mm.checks.image_reading import ImageReading, reading_of
from addp_mm.checks.type_lookup import is_kind
from addp_mm.datasets.errors import DatasetError

_MAX_BEYOND = 0.05  # if a larger share of the boxes exceeds their images, they are not [x, y, width, height]


class CocoFile(NamedTuple):
    """A checked annotation file.

    Attributes:
        path: The file.
        repairs: Number of repairs by kind, see :mod:`addp_mm.checks.coco_repairs`.
        content: The repaired content; None if nothing was repaired.
        labels: Names of the classes in the order in which mmdet numbers them.
    """

    path: Path
    repairs: Counter
    content: dict | None
    labels: list[str]


def check_coco(cfg: Mapping, use: CocoUse | None = None, share: float | None = None) -> CocoFile:
    """Check the annotation file of a CocoDataset, record by record, and its images.

    Args:
        cfg: Config of the dataset.
        use: What the run does with the annotations. Defaults to None: it does not evaluate them.
        share: Share of faulty annotations that are left out of training, in addition to ten.
            Defaults to None: a faulty annotation is an error, as always in validation.

    Returns:
        The file, with the repairs that it needs.

    Raises:
        DatasetError: Something is wrong. The message names the file and the record.
    """
    path, use = join(cfg, cfg.get('ann_file', '')), use or CocoUse()
    with collector_paused():
        content = read_coco(path, needs_annotations=use.scored)
        content, left_out = _without_faulty(path, cfg, content, use, share)
        check_records(path, content, use.evaluated)
        labels = _check_classes(
            path, [category['name'] for category in content['categories']], classes_of(cfg, 'mmdet')
        )
        check_references(path, content)
        used = {category['id'] for category in content['categories'] if category['name'] in labels}
        content, repairs = _check_and_repair(path, cfg, content, used, use)
        repairs.update(left_out)
        prefix = prefix_of(cfg)
        folder = join(cfg, prefix.get('img') or prefix.get('img_path') or '')
        _check_images(path, content['images'], folder, reading_of(cfg.get('pipeline')))
        _check_boxes_fit(path, content)  # after the image sizes, which this check uses
        _check_what_remains(path, cfg, content, used, use)
    return CocoFile(path, repairs, content if repairs else None, labels)


def _without_faulty(
    path: Path, cfg: Mapping, content: dict, use: CocoUse, share: float | None
) -> tuple[dict, dict[str, int]]:
    """The content without faulty annotations, and their number if there are some."""
    if share is None or use.evaluated or cfg.get('test_mode'):
        return content, {}
    check_records(path, content, use.evaluated, ('categories', 'images'))  # annotations name them
    content, count = leave_out_faulty(path, content, _loads_masks(cfg), share)
    return content, {'left_out': count} if count else {}


def _loads_masks(cfg: Mapping) -> bool:
    return any(transform.get('with_mask') for transform in transforms_of(cfg.get('pipeline')))


def check_metric_file(path: Path, use: CocoUse) -> CocoFile:
    """Check the records of an annotation file that a metric reads and no dataset.

    Args:
        path: The file.
        use: What the run does with it.

    Returns:
        The file, with the repairs that it needs.

    Raises:
        DatasetError: A record has a fault.
    """
    with collector_paused():
        content = read_coco(path, needs_annotations=use.scored)
        check_records(path, content, use.evaluated)
        check_references(path, content)
        content, repairs = _check_and_repair(path, {}, content, set(), use)
    return CocoFile(path, repairs, content if repairs else None, [])


def _check_and_repair(path: Path, cfg: Mapping, content: dict, used: set, use: CocoUse) -> tuple[dict, Counter]:
    loads_masks = _loads_masks(cfg)
    annotations = content['annotations']
    if loads_masks or use.masks or any(one.get('area') is None or 'bbox' not in one for one in annotations):
        check_segmentations(path, content)
    content, repairs = repair_annotations(content, use)
    if loads_masks or use.masks:
        _check_masks(path, content, used, use.masks, repairs['masks'] + repairs['ignored'])
    return content, repairs


def _check_what_remains(path: Path, cfg: Mapping, content: dict, used: set, use: CocoUse) -> None:
    """The metric finds objects, or the training finds images and objects."""
    if use.evaluated:
        if use.scored:
            warn_without_objects(path, content, used)
        return
    if cfg.get('test_mode'):
        return
    transforms = transforms_of(cfg.get('pipeline'))
    if any(is_kind(one.get('type'), TRANSFORMS, 'mmcv.transforms', 'LoadAnnotations') for one in transforms):
        check_objects(path, content, used)
    check_filter(path, cfg, content, used)


def _check_classes(path: Path, names: Sequence[str], classes: Sequence[str] | None) -> list[str]:
    """Every class has a category.

    Returns:
        The classes in the order in which mmdet numbers them.
    """
    missing = [name for name in classes or () if name not in names]
    if missing:
        raise DatasetError(
            f'{path} lacks the classes {quoted(missing)} of metainfo.classes; its categories are '
            f'{quoted(names, 20)}. Set metainfo=dict(classes=[…]) to the names in the file.'
        )
    labels = [name for name in names if not classes or name in classes]
    if classes and labels != list(classes):
        print_log(
            f'{path}: mmdet numbers classes in the order of the file, but metainfo.classes has another order, so that '
            'drawn images would show wrong names. Use the order of the file.',
            'current',
            WARNING,
        )
    return labels


def _check_images(path: Path, images: Sequence[dict], folder: Path, reading: ImageReading) -> None:
    """Images exist and are complete; up to 2,000 of them have the size given in the file."""
    check_listed_images(path, folder, [image['file_name'] for image in images], reading.decode)
    for index, record in spread(list(enumerate(images))):
        file, width, height = folder / record['file_name'], record['width'], record['height']
        found = reading.size(file)
        if found not in (None, (height, width)):
            raise DatasetError(
                f'{where(path, "images", index, record)} has the width {width} and the height {height}, '
                f'but {file} is {found[1]} wide and {found[0]} high with its EXIF orientation applied. {ADVICE}'
            )


def _check_boxes_fit(path: Path, content: dict) -> None:
    """Boxes are in pixels, and few exceed their image by more than one pixel."""
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    count, all_small, first, beyond = 0, True, None, 0
    for index, record in enumerate(content['annotations']):
        if record.get('ignore'):
            continue
        box = record['bbox']
        count += 1
        all_small = all_small and max(box) <= 1
        if _reaches_beyond(box, *sizes[record['image_id']]):
            first, beyond = (index, record) if first is None else first, beyond + 1
    if count and all_small:
        raise DatasetError(f'{path}: every bbox is between 0 and 1, but {BOX}. Multiply them by width and height.')
    if first is None:
        return
    index, record = first
    width, height = sizes[record['image_id']]
    words = (
        f'{where(path, "annotations", index, record)} has the bbox {record["bbox"]}, which exceeds its image '
        f'of width {width} and height {height}. So do {beyond} of {count} boxes; {BOX}.'
    )
    if beyond > _MAX_BEYOND * count:
        raise DatasetError(f'{words} {ADVICE}')
    print_log(f'{words} mmdet clips them.', 'current', WARNING)


def _reaches_beyond(box: Sequence[float], width: float, height: float) -> bool:
    return box[0] + box[2] > width + 1 or box[1] + box[3] > height + 1


def _check_masks(path: Path, content: dict, used: set, evaluated: bool, without: int) -> None:
    """Every annotation that mmdet keeps has a mask.

    Args:
        path: The file.
        content: Its repaired content.
        used: Ids of the categories that are classes.
        evaluated: Whether a metric reads the masks. Then objects without one were repaired.
        without: Number of these objects.
    """
    annotations = content['annotations']
    if evaluated and without and without == sum(not one.get('iscrowd') for one in annotations):
        raise DatasetError(
            f'{path}: no object has a mask, but the evaluator computes the AP of masks. Add a segmentation to the '
            "annotations, or set metric='bbox' in the evaluator."
        )
    if evaluated:
        return
    unusable = []
    for index, annotation in enumerate(annotations):
        segmentation = annotation.get('segmentation')
        if not is_trained(annotation, used) or usable_polygons(segmentation) is not None:
            continue
        if not segmentation:
            raise DatasetError(
                f'{where(path, "annotations", index, annotation)} has no segmentation, but the pipeline loads masks. '
                'Add it, or set with_mask=False and train a detector without masks.'
            )
        unusable.append(where(path, 'annotations', index, annotation))
    if unusable:
        print_log(
            f'{unusable[0]} has no mask: its polygons enclose nothing. {len(unusable)} of {len(annotations)} objects '
            'are like that; mmdet ignores those of fewer than three points in training.',
            'current',
            WARNING,
        )
