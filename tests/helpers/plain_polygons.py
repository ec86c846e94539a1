# Copyright (c) addp_mm contributors. Apache-2.0.
"""Geometry of convex polygons by plain loops, to compare with."""

import math

import numpy as np


def corners_of(box):
    """Corners of a rotated box (x, y, width, height, angle from x to y)."""
    x, y, width, height, angle = box
    cos, sin = math.cos(angle), math.sin(angle)
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    moves = [(i * width / 2, j * height / 2) for i, j in signs]
    return [(x + dx * cos - dy * sin, y + dx * sin + dy * cos) for dx, dy in moves]


def polygon_area(corners):
    """Area by the sum over all sides."""
    pairs = zip(corners, [*corners[1:], *corners[:1]], strict=True)
    return abs(sum(x * v - u * y for (x, y), (u, v) in pairs)) / 2


def _bounds(corners, x):
    """Lowest and highest y of a convex polygon at many x; inf and -inf outside."""
    low, high = np.full(len(x), np.inf), np.full(len(x), -np.inf)
    for (x1, y1), (x2, y2) in zip(corners, [*corners[1:], *corners[:1]], strict=True):
        here = (x >= min(x1, x2)) & (x <= max(x1, x2)) & (x1 != x2)
        y = y1 + (x - x1) * ((y2 - y1) / (x2 - x1) if x1 != x2 else 0)
        low, high = np.where(here, np.minimum(low, y), low), np.where(here, np.maximum(high, y), high)
    return low, high


def sliced_area(first, second, slices=20000):
    """Area that two convex polygons share, as a sum of thin slices."""
    start, end = (pick(pick(x for x, _ in one) for one in (first, second)) for pick in (min, max))
    width = (end - start) / slices
    x = start + (np.arange(slices) + 0.5) * width
    (low, high), (other_low, other_high) = _bounds(first, x), _bounds(second, x)
    return float((np.minimum(high, other_high) - np.maximum(low, other_low)).clip(0).sum() * width)


def hull_of(points):
    """Corners of the convex hull, from the lowest and then leftmost on, from x to y."""
    points = sorted(set(points))
    if len(points) < 3:
        return points

    def chain(ordered):
        kept = []
        for x, y in ordered:
            while len(kept) > 1:
                (a, b), (c, d) = kept[-2:]
                if (c - a) * (y - b) - (d - b) * (x - a) > 0:
                    break
                kept.pop()
            kept.append((x, y))
        return kept[:-1]

    hull = chain(points) + chain(points[::-1])
    first = min(range(len(hull)), key=lambda i: hull[i][::-1])
    return hull[first:] + hull[:first]
