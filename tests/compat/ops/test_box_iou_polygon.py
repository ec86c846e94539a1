# Copyright (c) addp_mm contributors. Apache-2.0.
import itertools
import math

import pytest
import torch
from helpers.plain_polygons import corners_of, hull_of, polygon_area, sliced_area


def rotated(generator, count, size=20.0, dtype=torch.float32):
    """Rotated boxes of which about a third overlap."""
    center = torch.rand(count, 2, generator=generator) * size
    sides = 1 + torch.rand(count, 2, generator=generator) * size / 2
    angle = (torch.rand(count, 1, generator=generator) - 0.5) * 4 * math.pi
    return torch.cat([center, sides, angle], 1).to(dtype)


def as_quads(boxes):
    return torch.tensor([[v for corner in corners_of(box) for v in corner] for box in boxes.tolist()]).to(boxes.dtype)


def plain_overlap(first, second, mode='iou'):
    first, second = corners_of(first), corners_of(second)
    shared = sliced_area(first, second)
    base = polygon_area(first)
    return shared / (base + polygon_area(second) - shared if mode == 'iou' else base)


@pytest.mark.parametrize('mode', ['iou', 'iof'])
def test_rotated_overlaps_equal_a_sum_of_slices(mmcv_ops, generator, device, mode):
    one, other = rotated(generator, 9), rotated(generator, 7)
    found = mmcv_ops.box_iou_rotated(one.to(device), other.to(device), mode).cpu()
    expected = torch.tensor([[plain_overlap(a, b, mode) for b in other.tolist()] for a in one.tolist()])
    assert 0.1 < (expected > 0).float().mean() < 0.9
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    aligned = mmcv_ops.box_iou_rotated(one[:7].to(device), other.to(device), mode, aligned=True).cpu()
    torch.testing.assert_close(aligned, found[:7].diagonal(), atol=1e-6, rtol=0)


def test_counter_clockwise_angles_are_negative(mmcv_ops, generator):
    one, other = rotated(generator, 5), rotated(generator, 4)
    flip = torch.tensor([1, 1, 1, 1, -1.0])
    assert torch.equal(
        mmcv_ops.box_iou_rotated(one * flip, other * flip, clockwise=False), mmcv_ops.box_iou_rotated(one, other)
    )


# box, other box, overlap
KNOWN = [
    ((0, 0, 2, 2, 0.3), (0, 0, 2, 2, 0.3), 1),  # the same
    ((0, 0, 2, 2, 0), (0, 0, 2, 2, math.pi / 2), 1),  # the same, other corners
    ((0, 0, 2, 2, 0), (0, 0, 2, 2, math.pi / 4), 1 / math.sqrt(2)),  # an octagon
    ((0, 0, 4, 4, 0.7), (0, 0, 2, 2, 0.7), 0.25),  # inside
    ((0, 0, 2, 2, 0), (2, 0, 2, 2, 0), 0),  # a common side
    ((0, 0, 2, 2, 0), (2, 2, 2, 2, 0), 0),  # a common corner
    ((0, 0, 2, 2, 0), (1, 0, 2, 2, 0), 1 / 3),  # two common sides
    ((0, 0, 2, 2, 0), (9, 0, 2, 2, 1), 0),  # apart
    ((0, 0, 4, 1, 0), (0, 0, 1, 4, 0), 1 / 7),  # a cross
    ((0, 0, 0, 2, 0), (0, 0, 0, 2, 0), 0),  # no area
    ((0, 0, -2, 2, 0), (0, 0, 2, 2, 0), 0),
    ((math.nan, 0, 2, 2, 0), (0, 0, 2, 2, 0), 0),
    ((math.inf, 0, 2, 2, 0), (0, 0, 2, 2, 0), 0),
    ((0, 0, math.inf, 2, 0), (0, 0, 2, 2, 0), 0),
]


@pytest.mark.parametrize('one, other, expected', KNOWN)
def test_known_overlaps(mmcv_ops, one, other, expected):
    one, other = torch.tensor([one, other], dtype=torch.float32).split(1)
    for first, second in ((one, other), (other, one)):
        assert mmcv_ops.box_iou_rotated(first, second).item() == pytest.approx(expected, abs=1e-6)
        assert mmcv_ops.box_iou_rotated(first, second, aligned=True).item() == pytest.approx(expected, abs=1e-6)
        far = torch.tensor([2.0**14, -(2.0**15), 0, 0, 0])
        assert mmcv_ops.box_iou_rotated(first + far, second + far).item() == pytest.approx(expected, abs=1e-6)


def test_a_box_with_a_side_of_nan_has_no_overlap_that_is_a_number(mmcv_ops):
    boxes = torch.tensor([[0, 0, math.nan, 2, 0], [0, 0, 2, 2, 0]])
    assert mmcv_ops.box_iou_rotated(boxes, boxes).isnan().tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize('noise', [0, 1e-7, 1e-6, 1e-5])
def test_rounding_does_not_lose_sides_of_nearly_equal_boxes(mmcv_ops, generator, noise):
    boxes = rotated(generator, 500, 1000)
    moved = boxes * (1 + noise * torch.randn(500, 5, generator=generator))
    found = mmcv_ops.box_iou_rotated(boxes, moved, aligned=True)
    exact = mmcv_ops.box_iou_rotated(boxes.double(), moved.double(), aligned=True)
    assert (found - exact).abs().max() < 1e-4


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_overlaps_are_rounded_once(mmcv_ops, generator, dtype):
    one, other = rotated(generator, 6, dtype=dtype), rotated(generator, 5, dtype=dtype)
    half = mmcv_ops.box_iou_rotated(one, other)
    assert half.dtype == dtype
    assert torch.equal(half, mmcv_ops.box_iou_rotated(one.float(), other.float()).to(dtype))


@pytest.mark.parametrize('columns, name', [(5, 'box_iou_rotated'), (8, 'box_iou_quadri')])
def test_no_boxes(mmcv_ops, columns, name):
    function = getattr(mmcv_ops, name)
    none, some = torch.zeros(0, columns), torch.rand(3, columns)
    assert function(none, some).shape == (0, 3)
    assert function(some, none).shape == (3, 0)
    assert function(none, none, aligned=True).shape == (0,)


def test_chunks_do_not_matter(mmcv_ops, generator, monkeypatch):
    from addp_mm.compat.ops import polygons

    one, other = rotated(generator, 9), rotated(generator, 7)
    whole = mmcv_ops.box_iou_rotated(one, other)
    monkeypatch.setattr(polygons, '_CHUNK_BOXES', 15)
    monkeypatch.setattr(polygons, '_CHUNK_PAIRS', 4)
    torch.testing.assert_close(mmcv_ops.box_iou_rotated(one, other), whole)


@pytest.mark.parametrize('turned', [False, True])
def test_quadrilaterals_that_are_rectangles(mmcv_ops, generator, device, turned):
    one, other = rotated(generator, 9, dtype=torch.float64), rotated(generator, 7, dtype=torch.float64)
    quads, others = as_quads(one), as_quads(other)
    if turned:  # corners in the other direction, from another one on
        quads = quads.view(-1, 4, 2).flip(1).roll(1, 1).flatten(1)
    for mode in ('iou', 'iof'):
        found = mmcv_ops.box_iou_quadri(quads.to(device), others.to(device), mode).cpu()
        torch.testing.assert_close(found, mmcv_ops.box_iou_rotated(one, other, mode))


def plain_quad_overlap(first, second):
    """mmcv's definition in plain loops."""

    def cross(a, b):
        return a[0] * b[1] - a[1] * b[0]

    def less(a, b):
        return a[0] - b[0], a[1] - b[1]

    def inside(point, quad):
        ray = less(point, quad[0])
        return all(
            0 <= ray[0] * side[0] + ray[1] * side[1] <= side[0] ** 2 + side[1] ** 2
            for side in (less(quad[1], quad[0]), less(quad[3], quad[0]))
        )

    points = [p for p in first if inside(p, second)] + [p for p in second if inside(p, first)]
    for i, j in itertools.product(range(4), range(4)):
        side, other = less(first[(i + 1) % 4], first[i]), less(second[(j + 1) % 4], second[j])
        gap, scale = less(second[j], first[i]), cross(other, side)
        if abs(scale) > 1e-14 and 0 <= cross(other, gap) / scale <= 1 and 0 <= cross(side, gap) / scale <= 1:
            share = cross(other, gap) / scale
            points.append((first[i][0] + share * side[0], first[i][1] + share * side[1]))
    areas = polygon_area(first), polygon_area(second)
    shared = min(polygon_area(hull_of(points)), *areas)
    return shared / (sum(areas) - shared)


def test_other_quadrilaterals_follow_the_definition_of_mmcv(mmcv_ops, generator):
    # four corners around a circle are convex
    angle = (torch.rand(12, 4, generator=generator, dtype=torch.float64) * 2 * math.pi).sort(1)[0]
    center = torch.rand(12, 1, 2, generator=generator, dtype=torch.float64) * 4
    quads = center + 3 * torch.stack([angle.cos(), angle.sin()], -1)
    one, other = quads[:6], quads[6:]
    found = mmcv_ops.box_iou_quadri(one.flatten(1), other.flatten(1))
    pairs = [[(list(map(tuple, a)), list(map(tuple, b))) for b in other.tolist()] for a in one.tolist()]
    expected = torch.tensor([[plain_quad_overlap(*pair) for pair in row] for row in pairs], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    assert (found > 0).sum() > 10


def test_quadrilaterals_without_area(mmcv_ops):
    point, line, square = [1.0] * 8, [0.0, 0, 2, 0, 2, 0, 0, 0], [0.0, 0, 2, 0, 2, 2, 0, 2]
    boxes = torch.tensor([point, line, square])
    assert mmcv_ops.box_iou_quadri(boxes, boxes).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert mmcv_ops.box_iou_quadri(boxes * math.nan, boxes).nan_to_num(0).tolist() == [[0.0] * 3] * 3
