# Copyright (c) addp_mm contributors. Apache-2.0.
import math

import pytest
import torch
from helpers.plain_polygons import corners_of, hull_of, polygon_area, sliced_area

SQUARE = [0.0, 0, 2, 0, 2, 2, 0, 2]


def make(generator, count=6, dtype=torch.float32):
    """Sets of nine points, and rotated boxes near them."""
    points = torch.rand(count, 9, 2, generator=generator, dtype=torch.float64) * 6
    boxes = torch.rand(count, 5, generator=generator, dtype=torch.float64) * 3 + 1
    quads = torch.tensor([[v for corner in corners_of(box) for v in corner] for box in boxes.tolist()])
    return points.flatten(1).to(dtype), quads.to(dtype)


def pairs(row):
    values = row.tolist()
    return list(zip(values[::2], values[1::2], strict=True))


def plain_overlaps(points, quad):
    """Overlap and generalized overlap of the hull of points with a quadrilateral."""
    hull, around = hull_of(points), polygon_area(hull_of(points + quad))
    shared = sliced_area(hull, quad)
    union = polygon_area(hull) + polygon_area(quad) - shared
    return shared / union, shared / union - (around - union) / around


def test_overlaps_of_point_sets_equal_a_sum_of_slices(mmcv_ops, generator, device):
    points, quads = make(generator)
    found = mmcv_ops.convex_iou(points.to(device), quads[:4].to(device)).cpu()
    expected = torch.tensor([[plain_overlaps(pairs(p), pairs(q))[0] for q in quads[:4]] for p in points])
    assert (expected > 0).float().mean() > 0.5
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    generalized = mmcv_ops.convex_giou(points.to(device), quads.to(device))[0].cpu()
    rows = zip(points, quads, strict=True)
    expected = torch.tensor([plain_overlaps(pairs(p), pairs(q))[1] for p, q in rows])
    torch.testing.assert_close(generalized, expected, atol=5e-4, rtol=0)


def test_the_gradient_of_the_generalized_overlap(mmcv_ops, generator):
    points, quads = make(generator, 12, torch.float64)
    grad = mmcv_ops.convex_giou(points, quads)[1]
    step = 1e-6
    for column in range(18):
        move = torch.zeros(18, dtype=torch.float64)
        move[column] = step
        up, down = (mmcv_ops.convex_giou(points + sign * move, quads)[0] for sign in (1, -1))
        torch.testing.assert_close(grad[:, column], (up - down) / (2 * step), atol=1e-7, rtol=1e-5)
    assert (grad != 0).any(1).all()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_a_corner_on_a_side_has_the_gradient_of_the_shared_area(dtype):
    from addp_mm.compat.ops.polygons import intersection_areas

    # the corner (2, 2) of the square is on the long side: nothing is cut off to first order
    hull = torch.tensor([[[0.5, 0.5], [3, 0.5], [3, 1], [1, 3], [0.5, 3]]], dtype=dtype, requires_grad=True)
    shared = intersection_areas(hull, torch.tensor([SQUARE], dtype=dtype).view(1, 4, 2))
    assert shared.item() == 2.25
    shared.backward()
    # the sides at the left and below move as a whole, and are shared by 3 / 5 of their length
    expected = [[-1.5 * 0.7, -1.5 * 0.7], [0, -1.5 * 0.3], [0, 0], [0, 0], [-1.5 * 0.3, 0]]
    torch.testing.assert_close(hull.grad[0], torch.tensor(expected, dtype=dtype), atol=1e-5, rtol=0)


def test_degenerate_point_sets(mmcv_ops):
    same, inner, line = [1.0] * 18, SQUARE + [1.0] * 10, [float(v) for i in range(9) for v in (i, i)]
    points, square = torch.tensor([same, inner, line]), torch.tensor([SQUARE])
    assert mmcv_ops.convex_iou(points, square).tolist() == [[0], [1], [0]]
    assert mmcv_ops.convex_iou(points[:1], torch.ones(1, 8)).tolist() == [[0]]
    giou, grad = mmcv_ops.convex_giou(points, square.expand(3, 8).contiguous())
    assert giou[:2].tolist() == pytest.approx([0, 1])
    assert -1 <= giou[2] <= 0
    assert grad.isfinite().all()
    assert not mmcv_ops.convex_giou(points[:1], torch.ones(1, 8))[1].any()
    # quadrilaterals without area: a line inside the square, one far away, and a point
    lines = torch.tensor([[0.5, 1, 1.5, 1, 1.5, 1, 0.5, 1], [50.0, 2, 58, 2, 58, 2, 50, 2], [1.0, 1] * 4])
    squares = torch.tensor([SQUARE + SQUARE + SQUARE[:2]] * 3)
    assert mmcv_ops.convex_iou(squares[:1], lines).tolist() == [[0, 0, 0]]
    giou, grad = mmcv_ops.convex_giou(squares, lines)
    assert giou.tolist() == pytest.approx([0, -56 / 60, 0])  # the second: a square of 4 in a hull of 60
    assert grad.isfinite().all()
    assert grad[1].any()
    points[0, 3] = math.nan
    assert mmcv_ops.convex_giou(points, square.expand(3, 8).contiguous())[0].isnan().tolist() == [True, False, False]


def test_reversed_quadrilaterals_and_repeated_points(mmcv_ops, generator):
    points, quads = make(generator, dtype=torch.float64)
    turned = quads.view(-1, 4, 2).flip(1).flatten(1)
    torch.testing.assert_close(mmcv_ops.convex_iou(points, turned), mmcv_ops.convex_iou(points, quads))
    points[:, 2:4] = points[:, :2]
    giou, grad = mmcv_ops.convex_giou(points, quads)
    torch.testing.assert_close(giou, mmcv_ops.convex_giou(points, turned)[0])
    assert not grad[:, 2:4].any()  # the first of equal points


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half(mmcv_ops, generator, dtype):
    points, quads = make(generator, dtype=dtype)
    exact = mmcv_ops.convex_iou(points.float(), quads.float())
    assert torch.equal(mmcv_ops.convex_iou(points, quads), exact.to(dtype))
    giou, grad = mmcv_ops.convex_giou(points, quads)
    expected = mmcv_ops.convex_giou(points.float(), quads.float())
    assert torch.equal(giou, expected[0].to(dtype))
    assert torch.equal(grad, expected[1].to(dtype))
    assert torch.equal(mmcv_ops.min_area_polygons(points), mmcv_ops.min_area_polygons(points.float()).to(dtype))


def test_no_point_sets(mmcv_ops):
    none, square = torch.zeros(0, 18), torch.tensor([SQUARE])
    assert mmcv_ops.convex_iou(none, square).shape == (0, 1)
    assert mmcv_ops.convex_giou(none, torch.zeros(0, 8))[1].shape == (0, 18)
    assert mmcv_ops.min_area_polygons(none).shape == (0, 8)
    assert mmcv_ops.points_in_polygons(torch.zeros(0, 2), square).shape == (0, 1)


def test_hulls(generator):
    from addp_mm.compat.ops.polygons import convex_hulls, corners_at

    points = torch.rand(40, 9, 2, generator=generator, dtype=torch.float64)
    points[20:] = (points[20:] * 4).round()  # equal points, and many on one line
    hulls = corners_at(points, convex_hulls(points))
    for found, row in zip(hulls.tolist(), points.tolist(), strict=True):
        expected = hull_of([tuple(point) for point in row])
        found = [tuple(point) for point in found]
        assert found == expected + [expected[0]] * (len(found) - len(expected))


def test_repeated_points_are_no_corners(generator):
    from addp_mm.compat.ops.polygons import convex_hulls, corners_at

    # kernels may round the last elements of a batch in another way: equal points must stay equal
    points = torch.rand(300, 7, 2, generator=generator)
    points[:, 4:] = points[:, :1]
    hulls = convex_hulls(points)
    assert hulls.max() == 3
    for found, row in zip(corners_at(points, hulls).tolist(), points.tolist(), strict=True):
        assert {tuple(point) for point in found} == set(hull_of([tuple(point) for point in row]))


def plain_smallest_area(points):
    """Area of the smallest of the rectangles along all pairs of points."""
    best = math.inf
    for x, y in points:
        for u, v in points:
            length = math.hypot(u - x, v - y)
            if length == 0:
                continue
            cos, sin = (u - x) / length, (v - y) / length
            along, across = [a * cos + b * sin for a, b in points], [b * cos - a * sin for a, b in points]
            best = min(best, (max(along) - min(along)) * (max(across) - min(across)))
    return best


def test_smallest_rectangles(mmcv_ops, generator, device):
    points = make(generator, 20)[0]
    found = mmcv_ops.min_area_polygons(points.to(device)).cpu().double()
    for row, corners in zip(points.double(), found.view(-1, 4, 2), strict=True):
        side, other = corners[0] - corners[1], corners[2] - corners[1]
        assert (side * other).sum().abs() < 1e-4  # a rectangle
        assert side[0] > 0
        assert side[1] > -1e-6
        assert side[0] * other[1] - side[1] * other[0] > 0
        torch.testing.assert_close(corners[0] + corners[2], corners[1] + corners[3], atol=1e-5, rtol=1e-5)
        assert polygon_area(corners.tolist()) == pytest.approx(plain_smallest_area(pairs(row)), rel=1e-5)
        rays = row.view(9, 2) - corners[1]
        for axis in (side, other):
            share = (rays * axis).sum(1) / axis.square().sum()
            assert share.min() > -1e-4
            assert share.max() < 1 + 1e-4


def test_smallest_rectangles_of_points_and_lines(mmcv_ops):
    point, line = [3.0, 4.0] * 9, [float(v) for i in range(9) for v in (i, 2 * i)]
    found = mmcv_ops.min_area_polygons(torch.tensor([point, line]))
    assert found[0].tolist() == [3.0, 4.0] * 4
    torch.testing.assert_close(found[1], torch.tensor([8.0, 16, 0, 0, 0, 0, 8, 16]), atol=1e-5, rtol=0)


def test_the_smallest_rectangle_on_a_side_against_y(mmcv_ops):
    outline = [0, 0, 3.9, 0.4, 4, 1, 3.9, 1.6, 0, 2]  # the last side is (0, -2)
    found = mmcv_ops.min_area_polygons(torch.tensor([outline + [1.0] * 8]))
    torch.testing.assert_close(found, torch.tensor([[4.0, 2, 4, 0, 0, 0, 0, 2]]))


def loop_points_in(points, polygons):
    """Crossings of a ray to the right, counted until the point is on the outline."""
    output = torch.zeros(len(points), len(polygons))
    for row, (x, y) in enumerate(points.tolist()):
        for column, polygon in enumerate(polygons):
            corners, crossed = pairs(polygon), 0
            for i in range(4):
                (u, v), (p, q) = corners[i], corners[i - 1]
                if (u, v) == (x, y) or (p, q) == (x, y):
                    break
                if (v < y) != (q < y):
                    at = u + (y - v) * (p - u) / (q - v)
                    if at == x:
                        break
                    crossed += at > x
            output[row, column] = crossed % 2
    return output


def test_points_in_polygons(mmcv_ops, generator, device):
    quads = torch.cat([make(generator)[1], torch.tensor([SQUARE, SQUARE[2:] + SQUARE[:2], [1.0] * 8])])
    grid = torch.cartesian_prod(torch.linspace(-1, 3, 9), torch.linspace(-1, 3, 9))
    points = torch.cat([grid, torch.rand(50, 2, generator=generator) * 6, quads[:, :2]])
    found = mmcv_ops.points_in_polygons(points.to(device), quads.to(device)).cpu()
    assert found.dtype == torch.float32
    assert torch.equal(found, loop_points_in(points, quads))
    assert 0.1 < found.mean() < 0.5
    nan = torch.full((1, 2), math.nan)
    assert not mmcv_ops.points_in_polygons(nan, quads).any()
