# Copyright (c) addp_mm contributors. Apache-2.0.
"""The segmentation of a COCO annotation: its faults, its outline and its area."""

from array import array
from collections.abc import Mapping, Sequence
from operator import mul
from typing import Any

from addp_mm.finite import is_finite

_NUMBERS = frozenset((int, float))
_LEAST = 6  # coordinates of a triangle


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are not."""
    return type(value) in (int, float) and is_finite(value)


def are_numbers(values: Sequence) -> bool:
    """Whether all values are finite numbers."""
    # the sum is not finite if one of them is not, or if they are huge
    return _NUMBERS.issuperset(map(type, values)) and (is_finite(sum(values)) or all(map(is_number, values)))


def mask_fault(segmentation: Any, image: Mapping) -> str:
    """What makes a segmentation unreadable for mmdet or pycocotools.

    Args:
        segmentation: The value of ``segmentation``.
        image: Record of its image.

    Returns:
        The fault as the end of a sentence; '' if there is none. An empty or too short polygon is no
        fault: see :func:`usable_polygons`.
    """
    if not segmentation:
        return ''
    if isinstance(segmentation, dict):
        return _rle_fault(segmentation, image)
    if not isinstance(segmentation, list):
        return f'a segmentation that is neither a list of polygons nor an RLE: {segmentation!r:.40}'
    for polygon in segmentation:
        if not isinstance(polygon, (list, array)):
            return f'the polygon {polygon!r:.40}, which is not a list; a segmentation is [[x, y, x, y, …], …]'
        if not are_numbers(polygon):
            bad = next(value for value in polygon if not is_number(value))
            return f'{bad!r:.40} in a polygon; a polygon is [x, y, x, y, …] in pixels'
        if len(polygon) % 2:
            return f'a polygon of {len(polygon)} numbers; each point has two'
    return ''


def _rle_fault(rle: Mapping, image: Mapping) -> str:
    size, counts = rle.get('size'), rle.get('counts')
    wanted = [image['height'], image['width']]
    if size != wanted:
        return f'an RLE of the size {size!r:.40}, but its image has the height {wanted[0]} and the width {wanted[1]}'
    text = counts
    if isinstance(text, str):
        counts = _runs(text)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        return f'an RLE with the counts {text!r:.40}'
    if sum(counts) != wanted[0] * wanted[1]:
        return f'an RLE of {sum(counts)} pixels, but its image has {wanted[0] * wanted[1]}'
    return ''


def _runs(text: str) -> list[int] | None:
    """Lengths of the runs of a compressed RLE; None if the text is not one.

    Each number is written in groups of five bits, the lowest first, and from the fourth on as the
    difference to the number two before it.
    pycocotools reads it without a check, and does not return the runs.
    """
    runs: list[int] = []
    value = bits = 0
    for code in text.encode():
        group = code - 48
        if not 0 <= group < 64:
            return None
        value |= (group & 31) << bits
        bits += 5
        if group & 32:
            continue  # more groups follow
        if group & 16:
            value -= 1 << bits
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = bits = 0
    return None if bits else runs


def usable_polygons(segmentation: Any) -> Any:
    """A segmentation without its polygons that enclose nothing.

    Args:
        segmentation: A segmentation without a fault.

    Returns:
        The same object if nothing was left out; None if nothing remains.
    """
    if not isinstance(segmentation, list):
        return segmentation or None
    kept = [polygon for polygon in segmentation if _encloses(polygon)]
    return (segmentation if len(kept) == len(segmentation) else kept) or None


def _encloses(polygon: Sequence[float]) -> bool:
    """Whether a polygon has at least three points that are not on one line."""
    if len(polygon) < _LEAST:
        return False
    if _area(polygon):
        return True
    # a polygon that crosses itself may have the area 0, too
    x, y = polygon[0], polygon[1]
    arms = [(a - x, b - y) for a, b in zip(polygon[2::2], polygon[3::2], strict=True)]
    longest = max(arms, key=lambda arm: abs(arm[0]) + abs(arm[1]))
    return any(longest[0] * b != longest[1] * a for a, b in arms)


def _area(polygon: Sequence[float]) -> float:
    xs, ys = polygon[0::2], polygon[1::2]
    following = sum(map(mul, xs, ys[1:])) + xs[-1] * ys[0]
    return abs(following - sum(map(mul, ys, xs[1:])) - ys[-1] * xs[0]) / 2


def mask_area(segmentation: Any) -> float | None:
    """Area of a segmentation in pixels; None if it has no mask.

    Polygons that overlap are counted twice, as in the areas of COCO.
    """
    segmentation = usable_polygons(segmentation)
    if segmentation is None:
        return None
    if isinstance(segmentation, list):
        return sum(map(_area, segmentation))
    from pycocotools import mask

    return float(mask.area(_compressed(segmentation)))


def mask_box(segmentation: Any) -> list[float] | None:
    """Box around a segmentation, [x, y, width, height] in pixels; None if it has no mask."""
    segmentation = usable_polygons(segmentation)
    if segmentation is None:
        return None
    if isinstance(segmentation, list):
        xs = [x for polygon in segmentation for x in polygon[0::2]]
        ys = [y for polygon in segmentation for y in polygon[1::2]]
        return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    from pycocotools import mask

    return [float(number) for number in mask.toBbox(_compressed(segmentation))]


def _compressed(rle: dict) -> dict:
    from pycocotools import mask

    return mask.frPyObjects(rle, *rle['size']) if isinstance(rle['counts'], list) else rle


def box_polygon(box: Sequence[float]) -> list[list[float]]:
    """A box as a segmentation."""
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]
