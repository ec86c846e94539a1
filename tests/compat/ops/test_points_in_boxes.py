# Copyright (c) addp_mm contributors. Apache-2.0.
"""Operators on points in boxes and in voxels."""

import itertools
import math

import numpy as np
import pytest
import torch

BOXES = [
    [[0.0, 0, -1, 4, 2, 2, 0], [1, 0, -1, 2, 4, 2, 0.7], [0, 0, 0, 0, 0, 0, 0]],
    [[0.5, -0.5, -2, 1, 3, 3, -2.0], [9, 9, 9, 1, 1, 1, 0], [0, 0, -2, 9, 9, 9, 3.0]],
]


def scenes(generator, count=20):
    boxes = torch.tensor(BOXES)
    return boxes, torch.randn(2, count, 3, generator=generator) * 1.5


def local(box, point):
    """Position in a box, from its corner of lowest x, y and z, before it is turned."""
    x, y, z, *sides, angle = box
    turned = complex(point[0] - x, point[1] - y) * complex(math.cos(-angle), math.sin(-angle))
    return [turned.real + sides[0] / 2, turned.imag + sides[1] / 2, point[2] - z], sides


def holds(box, point):
    (x, y, z), sides = local(box, point)
    return 0 < x < sides[0] and 0 < y < sides[1] and 0 <= z <= sides[2]


def test_points_in_boxes(ext, mmcv_ops, generator, device):
    boxes, points = scenes(generator)
    expected = [
        [[int(holds(box, point)) for box in boxes[b].tolist()] for point in points[b].tolist()] for b in range(2)
    ]
    assert mmcv_ops.points_in_boxes_cpu(points, boxes).tolist() == expected
    found = torch.full((2, 20, 3), 7, dtype=torch.int32, device=device)
    ext.points_in_boxes_all_forward(boxes.to(device), points.to(device), found)
    assert found.tolist() == expected
    first = torch.full((2, 20), -1, dtype=torch.int32, device=device)
    ext.points_in_boxes_part_forward(boxes.to(device), points.to(device), first)
    assert first.tolist() == [[row.index(1) if 1 in row else -1 for row in scene] for scene in expected]
    ext.points_in_boxes_part_forward(boxes[:, :0].to(device), points.to(device), first.fill_(-1))
    assert (first == -1).all()


def test_a_face_above_or_below_belongs_to_a_box(mmcv_ops):
    box = torch.tensor([[[0.0, 0, 0, 2, 2, 2, 0]]])
    points = torch.tensor([[[0.0, 0, 0], [0, 0, 2], [1, 0, 1], [0, -1, 1]]])
    assert mmcv_ops.points_in_boxes_cpu(points, box).flatten().tolist() == [1, 1, 0, 0]


def test_points_in_boxes_in_parts(ext, generator, monkeypatch):
    boxes, points = scenes(generator)

    def found():
        every, first = torch.zeros(2, 20, 3, dtype=torch.int32), torch.full((2, 20), -1, dtype=torch.int32)
        pooled, empty = torch.zeros(2, 3, 6, 4), torch.zeros(2, 3, dtype=torch.int32)
        ext.points_in_boxes_all_forward(boxes, points, every)
        ext.points_in_boxes_part_forward(boxes, points, first)
        ext.roipoint_pool3d_forward(points, boxes, points[..., :1], pooled, empty)
        return every, first, pooled, empty

    whole = found()
    monkeypatch.setattr('addp_mm.compat.ops.roi_grid._CHUNK_ELEMENTS', 1)
    assert all(map(torch.equal, found(), whole))


def test_points_of_boxes_are_sampled(mmcv_ops, generator):
    boxes, points = scenes(generator)
    features = torch.randn(2, 20, 2, generator=generator)
    pooled, empty = mmcv_ops.RoIPointPool3d(6)(points, features, boxes)
    for b, m in itertools.product(range(2), range(3)):
        inside = [i for i, point in enumerate(points[b].tolist()) if holds(boxes[b, m].tolist(), point)]
        assert empty[b, m] == (not inside)
        for s in range(6):
            row = torch.zeros(5)
            if inside:
                index = inside[s % min(len(inside), 6)]
                row = torch.cat([points[b, index], features[b, index]])
            assert torch.equal(pooled[b, m, s], row)
    none = mmcv_ops.RoIPointPool3d(6)(points[:, :0], features[:, :0], boxes)
    assert none[1].all()
    assert not none[0].any()


@pytest.mark.parametrize('mode', ['max', 'avg'])
@pytest.mark.parametrize('most', [3, 50])
def test_cells_of_boxes(mmcv_ops, generator, mode, most):
    boxes, points = torch.tensor(BOXES[0] + BOXES[1]), torch.randn(40, 3, generator=generator) * 1.5
    features = torch.randn(40, 2, generator=generator, dtype=torch.float64).requires_grad_()
    layer = mmcv_ops.RoIAwarePool3d((2, 3, 1), most, mode)
    pooled = layer(boxes, points, features)
    expected = torch.zeros(6, 2, 3, 1, 2, dtype=torch.float64)
    for n, box in enumerate(boxes.tolist()):
        cells = {}
        for i, point in enumerate(points.tolist()):
            if holds(box, point):
                where, sides = local(box, point)
                cell = tuple(min(int(w / s * c), c - 1) for w, s, c in zip(where, sides, (2, 3, 1), strict=True))
                cells.setdefault(cell, []).append(i)
        for cell, inside in cells.items():
            values = features.detach()[inside[: most - 1]]
            expected[(n, *cell)] = values.max(0)[0] if mode == 'max' else values.mean(0)
    torch.testing.assert_close(pooled, expected)
    assert torch.autograd.gradcheck(lambda values: layer(boxes, points, values), features)
    assert layer(boxes[:0], points, features).shape == (0, 2, 3, 1, 2)
    assert not layer(boxes, points[:0], features[:0]).any()


def test_the_maximum_of_a_cell_leaves_out_nan(mmcv_ops):
    box, points = torch.tensor([[0.0, 0, 0, 2, 2, 2, 0]]), torch.tensor([[0.0, 0, 1]]).expand(3, 3).contiguous()
    features = torch.tensor([[1.0, math.nan], [math.nan, math.nan], [-math.inf, math.nan]], requires_grad=True)
    pooled = mmcv_ops.RoIAwarePool3d(1, 8, 'max')(box, points, features)
    assert pooled.flatten().tolist() == [1, 0]
    pooled.sum().backward()
    assert features.grad.tolist() == [[1, 0], [0, 0], [0, 0]]


RANGE, SIZE = [-2.0, -1.0, 0.0, 2.0, 1.0, 3.0], [0.5, 1.0, 3.0]


def voxel_of(point):
    place = [math.floor((p - low) / size) for p, low, size in zip(point, RANGE, SIZE, strict=False)]
    counts = [round((high - low) / size) for low, high, size in zip(RANGE, RANGE[3:], SIZE, strict=False)]
    inside = all(0 <= c < count for c, count in zip(place, counts, strict=True))
    return tuple(place[::-1]) if inside else (-1, -1, -1)


def cloud(generator):
    return torch.randn(40, 4, generator=generator) * torch.tensor([1.2, 0.6, 1.5, 1]) + torch.tensor([0.0, 0, 1.5, 0])


def test_the_voxel_of_each_point(mmcv_ops, generator):
    points = cloud(generator)
    points[3, 1] = math.nan
    found = mmcv_ops.Voxelization(SIZE, RANGE, -1)(points)
    points[3, 1] = 99
    assert [tuple(row) for row in found.tolist()] == [voxel_of(point[:3]) for point in points.tolist()]


@pytest.mark.parametrize('most,voxels', [(2, 5), (9, 100)])
def test_points_are_sorted_into_voxels(mmcv_ops, generator, most, voxels):
    points, expected = cloud(generator), {}
    for i, point in enumerate(points.tolist()):
        voxel = voxel_of(point[:3])
        if voxel[0] >= 0 and (voxel in expected or len(expected) < voxels):
            expected.setdefault(voxel, []).append(i)
    layer = mmcv_ops.Voxelization(SIZE, RANGE, most, voxels)
    values, places, numbers = layer(points)
    assert [tuple(place) for place in places.tolist()] == list(expected)
    assert numbers.tolist() == [min(len(inside), most) for inside in expected.values()]
    for voxel, inside in zip(values, expected.values(), strict=True):
        assert torch.equal(voxel[: len(inside)], points[inside[:most]])
        assert not voxel[len(inside) :].any()
    assert [len(part) for part in layer(points[:0])] == [0, 0, 0]


@pytest.mark.parametrize('kind', ['max', 'sum', 'mean'])
def test_features_of_voxels(mmcv_ops, generator, device, kind):
    features = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    places = torch.randint(-1, 2, (12, 3), generator=generator).int()
    reduced, voxels = (t.cpu() for t in mmcv_ops.dynamic_scatter(features.to(device), places.to(device), kind))
    groups = {}
    for i, place in enumerate(places.tolist()):
        if min(place) >= 0:
            groups.setdefault(tuple(place), []).append(i)
    assert [tuple(voxel) for voxel in voxels.tolist()] == sorted(groups)
    for row, voxel in zip(reduced, sorted(groups), strict=True):
        expected = getattr(np, kind)(features[groups[voxel]].numpy(), axis=0)
        torch.testing.assert_close(row, torch.from_numpy(expected))
    leaf = features.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mmcv_ops.dynamic_scatter(x, places, kind)[0], leaf)


@pytest.mark.parametrize('largest', [2**20, 2**62])
def test_voxels_far_apart_are_sorted(ext, largest):
    places = torch.tensor(
        [[0, 0, 0, largest], [0, largest, 0, 1], [largest, 0, 3, 0], [0, largest, 0, 1], [0, 0, 1, 0]]
    )
    features = torch.tensor([[1.0], [2], [3], [4], [5]]).half()
    reduced, voxels, voxel, number = ext.dynamic_point_to_voxel_forward(features, places, 'mean')
    assert torch.equal(voxels, places[[0, 4, 1, 2]])
    assert reduced.dtype == torch.float16
    assert reduced.flatten().tolist() == [1, 5, 3, 3]
    assert voxel.tolist() == [0, 2, 3, 2, 1]
    assert number.tolist() == [1, 1, 2, 1]


def test_features_of_no_voxel(mmcv_ops):
    leaf, outside = torch.ones(2, 3, requires_grad=True), torch.tensor([[0, 0, -1], [-1, 5, 5]]).int()
    reduced, voxels = mmcv_ops.dynamic_scatter(leaf, outside, 'max')
    reduced.sum().backward()
    assert reduced.shape == voxels.shape == (0, 3)
    assert not leaf.grad.any()
    assert mmcv_ops.dynamic_scatter(leaf[:0], outside[:0], 'sum')[0].shape == (0, 3)


def test_the_first_of_equal_points_gets_the_gradient_of_a_maximum(mmcv_ops):
    leaf = torch.tensor([[0.0], [2], [2]], requires_grad=True)
    mmcv_ops.dynamic_scatter(leaf, torch.zeros(3, 3).int(), 'max')[0].sum().backward()
    assert leaf.grad.tolist() == [[0], [1], [0]]
