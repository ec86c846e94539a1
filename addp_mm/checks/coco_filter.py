# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check what mmdet leaves of a COCO file: images after the filter, and objects."""

from collections import Counter
from collections.abc import Mapping
from logging import WARNING
from pathlib import Path

from mmengine.logging import print_log
from mmengine.registry import DATASETS

from addp_mm.checks.type_lookup import is_kind
from addp_mm.datasets.errors import DatasetError

_MANY = 0.5  # a filter that drops a larger share of the images is named


def is_trained(annotation: Mapping, used: set) -> bool:
    """Whether mmdet keeps an annotation.

    Args:
        annotation: Its record.
        used: Ids of the categories that are classes.
    """
    return not _why_dropped(annotation, used)


def _why_dropped(annotation: Mapping, used: set) -> str:
    if annotation.get('ignore'):
        return 'with ignore'
    if annotation['category_id'] not in used:
        return 'of a category that is not in metainfo.classes'
    if annotation['area'] <= 0:
        return 'whose area is 0'
    if min(annotation['bbox'][2:]) < 1:
        return 'whose bbox is smaller than 1 pixel'
    return ''


def check_objects(path: Path, content: Mapping, used: set) -> None:
    """Check that mmdet keeps an annotation.

    Raises:
        DatasetError: It keeps none.
    """
    annotations = content['annotations']
    if not annotations:
        raise DatasetError(
            f'{path}: "annotations" is empty, so that there is no training data. Write the file again, or '
            'set ann_file to another file.'
        )
    if any(is_trained(one, used) for one in annotations):
        return
    reasons = Counter(_why_dropped(one, used) for one in annotations)
    words = ', '.join(f'{count} {reason}' for reason, count in reasons.most_common())
    raise DatasetError(
        f'{path}: mmdet drops all {len(annotations)} annotations, so that there is no training data: {words}. Correct '
        'them, or set ann_file to another file.'
    )


def warn_without_objects(path: Path, content: Mapping, used: set) -> None:
    """Warn if a metric would find no object of a class."""
    if any(one['category_id'] in used and not one.get('iscrowd') for one in content['annotations']):
        return
    print_log(
        f'{path}: no object to evaluate ({len(content["annotations"])} annotations), so that the AP means nothing: '
        'CocoMetric gives -1. Set ann_file to a file with objects, or switch the validation off.',
        'current',
        WARNING,
    )


def check_filter(path: Path, cfg: Mapping, content: Mapping, used: set) -> None:
    """Check that ``filter_cfg`` leaves images.

    Raises:
        DatasetError: It drops all images. The message names its keys.
    """
    rules = cfg.get('filter_cfg')
    if not rules or not is_kind(cfg.get('type'), DATASETS, 'mmdet.datasets', 'CocoDataset', keeping='filter_data'):
        return
    images, least = content['images'], rules.get('min_size', 0)
    small = {image['id'] for image in images if min(image['width'], image['height']) < least}
    dropped, words = set(small), []
    if small:
        words.append(f'{len(small)} have a side below filter_cfg.min_size={least} pixels')
    if rules.get('filter_empty_gt'):
        owners = {one['image_id'] for one in content['annotations'] if one['category_id'] in used}
        empty = {image['id'] for image in images} - owners
        dropped |= empty
        if empty:
            words.append(f'{len(empty)} have no object (filter_cfg.filter_empty_gt=True)')
    if len(dropped) == len(images):
        remedy = 'correct the annotations'
        if small:
            shortest = min(min(image['width'], image['height']) for image in images)
            remedy = f'set filter_cfg.min_size to {shortest} or less'
        raise DatasetError(
            f'{path}: filter_cfg drops all {len(images)} images: {", ".join(words)}. To train on them, {remedy}.'
        )
    if len(small) > _MANY * len(images):
        print_log(
            f'{path}: filter_cfg drops {len(dropped)} of {len(images)} images: {", ".join(words)}. Set '
            'filter_cfg=dict(min_size=0) if you want to train on them.',
            'current',
            WARNING,
        )
