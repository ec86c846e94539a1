# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read a COCO annotation file of a million annotations in little time and memory."""

import gc
import json
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from addp_mm.checks.dataset_cfg import quoted, read_text
from addp_mm.datasets.errors import DatasetError

_NUMBERS = frozenset((int, float))


def read_coco(path: Path, needs_annotations: bool) -> dict:
    """Read an annotation file.

    Args:
        path: The file.
        needs_annotations: Whether "annotations" must exist; the test sets of COCO have none.

    Returns:
        Its content. Polygons of numbers are arrays, which take a fifth of the memory of lists.

    Raises:
        DatasetError: It is not a COCO annotation file, or has no images or categories.
    """
    with collector_paused():
        try:
            content = json.loads(read_text(path), object_hook=_with_compact_polygons)
        except RecursionError as error:
            raise DatasetError(
                f'{path}: nested too deeply for an annotation file. Write or download it again.'
            ) from error
        except json.JSONDecodeError as error:
            raise DatasetError(f'{path}: broken or incomplete JSON ({error}). Write or download it again.') from error
    sections = content if isinstance(content, dict) else {}
    if not needs_annotations:
        sections.setdefault('annotations', [])
    missing = [key for key in ('images', 'annotations', 'categories') if not isinstance(sections.get(key), list)]
    if missing:
        raise DatasetError(f'{path}: not a COCO annotation file, it lacks {quoted(missing)}. Check ann_file.')
    for key in ('images', 'categories'):
        if not content[key]:
            raise DatasetError(f'{path}: "{key}" is empty. Write the file again, or set ann_file to another file.')
    return content


def write_coco(path: Path, content: dict) -> None:
    """Write content that :func:`read_coco` has read."""
    with open(path, 'w') as file:
        # in parts: json.dump is slow, and json.dumps of the whole takes the memory of the content
        file.write('{')
        for number, (key, value) in enumerate(content.items()):
            file.write(f'{", " if number else ""}{json.dumps(key)}: ')
            if not isinstance(value, list):
                file.write(json.dumps(value, default=list))
                continue
            file.write('[')
            for index, record in enumerate(value):
                file.write((',\n' if index else '\n') + json.dumps(record, default=list))
            file.write(']')
        file.write('}\n')


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's garbage collector: it would look at all records again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _with_compact_polygons(record: dict) -> dict:
    polygons = record.get('segmentation')
    if type(polygons) is list:
        for index, polygon in enumerate(polygons):
            if type(polygon) is list and polygon and _NUMBERS.issuperset(map(type, polygon)):
                with suppress(OverflowError):  # a check names the number that no float can hold
                    polygons[index] = array('d', polygon)
    return record
