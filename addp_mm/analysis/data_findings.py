# Copyright (c) addp_mm contributors. Apache-2.0.
"""What looks unusual in the numbers of a dataset, in one line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from addp_mm.analysis.data_report import DataReport
from addp_mm.analysis.duplicates import Duplicates
from addp_mm.errors import first_few

_MANY_IGNORED = 0.5  # share of the pixels


def findings(reports: Sequence[DataReport], duplicates: Duplicates | None) -> list[str]:
    """Describe everything that looks unusual.

    Args:
        reports: Numbers of the datasets.
        duplicates: Files with the same content. Defaults to None: not searched.
    """
    found = [f'{report.split}: {text}' for report in reports for text in _of_report(report)]
    return [*found, *(_of_duplicates(duplicates) if duplicates else ())]


def _of_report(report: DataReport) -> Iterator[str]:
    absent = [name for name, count in zip(report.classes, report.by_class, strict=False) if not count]
    if absent and len(report.by_class):
        verb = 'never occurs' if len(absent) == 1 else 'never occur'
        yield f'{len(absent)} of {len(report.classes)} classes {verb}: {first_few(absent)}'
    if report.sizes and report.sizes.unknown:
        yield f'the size of {report.sizes.unknown:,} images is unknown'
    if report.boxes:
        yield from _of_boxes(report)
    if report.labels:
        yield from _of_labels(report)
    if report.tokens and report.tokens.broken:
        yield f'{report.tokens.broken:,} images could not be read when the ids were written'


def _of_boxes(report: DataReport) -> Iterator[str]:
    boxes = report.boxes
    assert boxes is not None
    if not boxes.objects:
        yield 'there is no object, so that an AP means nothing'
    if boxes.outside:
        yield f'{boxes.outside:,} of {boxes.objects:,} boxes exceed their image by more than one pixel'
    if boxes.degenerate:
        yield (
            f'{boxes.degenerate:,} of {boxes.objects:,} boxes are less than one pixel wide or high, or have no area. '
            'mmdet drops them'
        )
    if boxes.of_no_class:
        yield f'{boxes.of_no_class:,} annotations are of a category that is not among the classes'


def _of_labels(report: DataReport) -> Iterator[str]:
    labels = report.labels
    assert labels is not None
    if labels.unusual:
        values = (f'{value} ({count:,} pixels)' for value, count in labels.unusual.items())
        yield f'values of the label maps that are neither a class nor ignored: {first_few(values)}'
    if labels.pixels and labels.ignored > _MANY_IGNORED * labels.pixels:
        yield f'{labels.ignored / labels.pixels:.0%} of the pixels are ignored'
    if labels.unreadable:
        yield f'{len(labels.unreadable)} label maps cannot be read as one channel: {first_few(labels.unreadable)}'


def _of_duplicates(duplicates: Duplicates) -> Iterator[str]:
    for (first, second), count in duplicates.between.items():
        if count:
            yield f'{count:,} image files of {second} are also in {first}, with the same content'
    for split, count in duplicates.within.items():
        if count:
            yield f'{split}: {count:,} image files repeat another one of it'
    if duplicates.unreadable:
        yield f'{duplicates.unreadable:,} image files cannot be read, and were not compared'
