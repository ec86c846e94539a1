# Copyright (c) addp_mm contributors. Apache-2.0.
"""Annotation files of COCO."""

from __future__ import annotations

import json
from collections.abc import Iterable

from addp_mm.analysis.box_statistics import box_statistics
from addp_mm.analysis.coco_file import read_coco_file
from addp_mm.checks.coco import check_metric_file
from addp_mm.checks.coco_reading import write_coco
from addp_mm.checks.coco_use import CocoUse
from fuzz_targets.target import Target, scratch

_USES = (CocoUse(), CocoUse(evaluated=True), CocoUse(True, True), CocoUse(True, True, reads_marks=False))


def read_annotations(data: bytes) -> None:
    """Check and repair the file for each use; a repaired file needs no other repair."""
    path = scratch('annotations.json', data)
    for use in _USES:
        file = check_metric_file(path, use)
        if file.content is not None:
            repaired = scratch('repaired.json')
            write_coco(repaired, file.content)
            again = check_metric_file(repaired, use)
            if again.content is not None:
                raise AssertionError(f'a repaired file was repaired again: {dict(again.repairs)}')


def count_annotations(data: bytes) -> None:
    """Read the file for the data page."""
    box_statistics(read_coco_file(scratch('counted.json', data), num_samples=2).table)


def _content(**annotation) -> bytes:
    image = dict(id=1, file_name='a.png', width=4, height=3)
    box = dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 2, 2], area=4, iscrowd=0)
    content = dict(images=[image], categories=[dict(id=1, name='a')], annotations=[{**box, **annotation}])
    return json.dumps(content).encode()


def _annotations() -> Iterable[bytes]:
    yield _content(segmentation=[[0, 0, 2, 0, 2, 2]])
    yield _content(segmentation=[[0, 0, 1, 1]], iscrowd=None, id=0)
    yield _content(segmentation=dict(size=[3, 4], counts=[4, 4, 4]), ignore=1)
    yield _content(segmentation=dict(size=[3, 4], counts='444'), image_id='1')
    yield _content(segmentation=[], iscrowd=1, category_id='1')


_WORDS = (
    *(b'"images"', b'"annotations"', b'"categories"', b'"id"', b'"image_id"', b'"category_id"', b'"bbox"', b'"area"'),
    *(b'"segmentation"', b'"counts"', b'"size"', b'"iscrowd"', b'"ignore"', b'"width"', b'"height"', b'"file_name"'),
    *(
        b'null',
        b'true',
        b'NaN',
        b'Infinity',
        b'-1',
        b'1e999',
        b'1e300',
        b'4294967296',
        b'{}',
        b'[]',
        b'""',
        b'0.5',
        b'"1"',
    ),
)
COCO = Target(read_annotations, _annotations, words=_WORDS)
COCO_COUNTS = Target(count_annotations, _annotations, allowed=(ValueError,), words=_WORDS)
