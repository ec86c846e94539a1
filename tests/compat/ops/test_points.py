# Copyright (c) addp_mm contributors. Apache-2.0.
"""Operators on sets of points, and the shift along time."""

import math

import pytest
import torch


def draw(generator, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def grid(generator, *shape):
    """Points on a coarse grid, so that many distances are equal."""
    return torch.randint(-2, 3, shape, generator=generator).double()


def squares(point, others):
    return [sum((a - b) ** 2 for a, b in zip(point, other, strict=True)) for other in others]


@pytest.mark.parametrize('make', [draw, grid])
def test_three_nearest(mmcv_ops, generator, device, make):
    target, source = make(generator, 2, 5, 3), make(generator, 2, 7, 3)
    distance, index = mmcv_ops.three_nn(target.to(device), source.to(device))
    for b in range(2):
        for n, point in enumerate(target[b].tolist()):
            there = squares(point, source[b].tolist())
            nearest = sorted(range(7), key=there.__getitem__)[:3]
            assert index[b, n].tolist() == nearest
            assert distance[b, n].tolist() == pytest.approx([math.sqrt(there[i]) for i in nearest])


def test_three_nearest_of_two_points(mmcv_ops):
    distance, index = mmcv_ops.three_nn(torch.zeros(1, 1, 3), torch.tensor([[[0.0, 3, 4], [1, 0, 0]]]))
    assert distance.tolist() == [[[1, 5, math.inf]]]
    assert index.tolist() == [[[1, 0, 0]]]
    assert mmcv_ops.three_nn(torch.zeros(1, 0, 3), torch.zeros(1, 2, 3))[0].shape == (1, 0, 3)


def test_points_with_nan_are_not_near(ext, mmcv_ops):
    points = torch.tensor([[[math.nan, 0, 0], [3.0, 0, 0], [0, math.nan, 0], [1.0, 0, 0]]])
    distance, index = mmcv_ops.three_nn(torch.zeros(1, 2, 3), points)
    assert distance.tolist() == [[[1, 3, math.inf]] * 2]
    assert index.tolist() == [[[3, 1, 0]] * 2]
    distance, index = mmcv_ops.three_nn(points[:, :1], points)
    assert distance.isinf().all()
    assert not index.any()
    near, _, index, _ = mmcv_ops.chamfer_distance(torch.zeros(1, 1, 2), points[..., :2])
    assert (near.item(), index.item()) == (1, 3)
    index, distance = nearest(ext, points.expand(2, -1, -1), torch.zeros(2, 1, 3), 3)
    assert index[0].tolist() == [[3, 1, 0]]
    assert distance[0].tolist() == [[1, 9, 1e10]]
    far, index = torch.full((1, 4), 1e10), torch.zeros(1, 3, dtype=torch.int32)
    ext.furthest_point_sampling_forward(points.roll(-1, 1), far, index, b=1, n=4, m=3)
    assert index.tolist() == [[0, 1, 1]]  # it stays far from all
    assert far.tolist() == [[0, 1e10, 4, 1e10]]


def nearest(ext, points, centres, number):
    index = torch.full((len(centres), centres.size(1), number), 9, dtype=torch.int32)
    distance = torch.zeros(index.shape)
    ext.knn_forward(points, centres, index, distance, b=2, n=points.size(1), m=centres.size(1), nsample=number)
    return index, distance


def test_k_nearest(ext, generator, monkeypatch):
    points, centres = draw(generator, 2, 9, 3), draw(generator, 2, 4, 3)
    index, distance = nearest(ext, points, centres, 5)
    for b in range(2):
        for m, point in enumerate(centres[b].tolist()):
            there = squares(point, points[b].tolist())
            expected = sorted(range(9), key=there.__getitem__)[:5]
            assert index[b, m].tolist() == expected
            assert distance[b, m].tolist() == pytest.approx([there[i] for i in expected])
    monkeypatch.setattr('addp_mm.compat.ops.roi_grid._CHUNK_ELEMENTS', 1)  # in parts
    assert torch.equal(nearest(ext, points, centres, 5)[0], index)


def test_k_nearest_of_fewer_points(ext, generator):
    points, centres = draw(generator, 2, 2, 3), draw(generator, 2, 4, 3)
    index, distance = nearest(ext, points, centres, 4)
    assert not index[..., 2:].any()
    assert (distance[..., 2:] == 1e10).all()
    assert (nearest(ext, points[:, :0], centres, 4)[1] == 1e10).all()


def expected_ball(point, points, low, high, number):
    hits = [i for i, d in enumerate(squares(point, points)) if d == 0 or low**2 <= d < high**2][:number]
    return hits + [hits[0]] * (number - len(hits)) if hits else None


@pytest.mark.parametrize('low,high,number', [(0.0, 2.0, 3), (1.0, 3.0, 9), (0.0, 0.1, 2)])
def test_ball_query(mmcv_ops, generator, device, low, high, number):
    points, centres = grid(generator, 2, 7, 3), grid(generator, 2, 5, 3)
    found = mmcv_ops.ball_query(low, high, number, points.to(device), centres.to(device)).tolist()
    for b in range(2):
        for m, point in enumerate(centres[b].tolist()):
            expected = expected_ball(point, points[b].tolist(), low, high, number)
            assert found[b][m] == (expected or [0] * number)


def test_ball_query_of_scenes(mmcv_ops, generator):
    points, centres = grid(generator, 9, 3), grid(generator, 6, 3)
    counts, centre_counts = torch.tensor([4, 5, 0]).int(), torch.tensor([3, 2, 1]).int()
    found = mmcv_ops.ball_query(0, 2.0, 3, points, centres, counts, centre_counts).tolist()
    scenes, owners = points.split([4, 5, 0]), [0, 0, 0, 1, 1, 2]
    for row, point, scene in zip(found, centres.tolist(), owners, strict=True):
        expected = expected_ball(point, scenes[scene].tolist(), 0, 2.0, 3)
        assert row == (expected or [-1, 0, 0])


def test_points_are_picked(mmcv_ops, generator, device):
    features = draw(generator, 2, 3, 5)
    index = torch.tensor([[0, 4, 4], [2, 1, 0]]).int()
    expected = torch.stack([features[b][:, index[b].long()] for b in range(2)])
    assert torch.equal(mmcv_ops.gather_points(features.to(device), index.to(device)).cpu(), expected)
    groups = index[:, None].expand(2, 2, 3).contiguous()
    grouped = mmcv_ops.grouping_operation(features.to(device), groups.to(device)).cpu()
    assert torch.equal(grouped, expected[:, :, None].expand(2, 3, 2, 3))
    leaf = features.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mmcv_ops.gather_points(x, index), leaf)
    assert torch.autograd.gradcheck(lambda x: mmcv_ops.grouping_operation(x, groups), leaf)
    half = features.detach().half().requires_grad_()
    mmcv_ops.gather_points(half, index).sum().backward()
    assert half.grad[0, 0].tolist() == [1, 0, 0, 0, 2]


def test_points_of_scenes_are_picked(mmcv_ops, generator):
    features, counts = draw(generator, 5, 2), torch.tensor([2, 3]).int()
    index, index_counts = torch.tensor([[0, 1], [1, -1], [2, 0], [3, 0]]).int(), torch.tensor([2, 2]).int()
    grouped = mmcv_ops.grouping_operation(features, index, counts, index_counts)
    rows = [[0, 1], [1, None], [4, 2], [None, 2]]  # an index that the scene does not have gives zeros
    for group, expected in zip(grouped, rows, strict=True):
        for column, row in zip(group.T, expected, strict=True):
            assert torch.equal(column, torch.zeros(2).double() if row is None else features[row])
    leaf = features.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mmcv_ops.grouping_operation(x, index, counts, index_counts), leaf)


def test_interpolation_of_three_points(mmcv_ops, generator, device):
    features, weight = draw(generator, 2, 3, 5), draw(generator, 2, 4, 3)
    index = torch.randint(0, 5, (2, 4, 3), generator=generator).int()
    expected = torch.einsum('bcnj,bnj->bcn', mmcv_ops.grouping_operation(features, index), weight)
    found = mmcv_ops.three_interpolate(features.to(device), index.to(device), weight.to(device))
    torch.testing.assert_close(found.cpu(), expected)
    leaf = features.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mmcv_ops.three_interpolate(x, index, weight), leaf)


def test_scores_are_assigned(mmcv_ops, generator, device):
    points, centres = draw(generator, 2, 4, 2, 3), draw(generator, 2, 4, 2, 3)
    scores, neighbours = draw(generator, 2, 2, 3, 2), torch.tensor([[[0, 1, 4], [3, 3, -1]], [[2, 0, 1], [1, 2, 3]]])
    found = mmcv_ops.assign_score_withk(*(t.to(device) for t in (scores, points, centres, neighbours))).cpu()
    expected = torch.zeros(2, 3, 2, 3).double()
    for b in range(2):
        for n in range(2):
            for k, neighbour in enumerate(neighbours[b, n].tolist()):
                if 0 <= neighbour < 4:
                    offset = points[b, neighbour] - centres[b, neighbours[b, n, 0]]
                    expected[b, :, n, k] = scores[b, n, k] @ offset
    torch.testing.assert_close(found, expected)
    half = mmcv_ops.assign_score_withk(scores.half(), points.half(), centres.half(), neighbours)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.double(), expected, atol=0.02, rtol=0.01)
    leaves = [t.requires_grad_() for t in (scores, points, centres)]
    assert torch.autograd.gradcheck(lambda *given: mmcv_ops.assign_score_withk(*given, neighbours), leaves)


def furthest(distances, number):
    picked = [0]
    while len(picked) < number:
        nearest_picked = [min(row[i] for i in picked) for row in distances]
        picked.append(nearest_picked.index(max(nearest_picked)))
    return picked


def test_furthest_points(ext, mmcv_ops, generator):
    points = grid(generator, 2, 8, 3).float()
    index, nearest_picked = torch.zeros(2, 5, dtype=torch.int32), torch.full((2, 8), 1e10)
    ext.furthest_point_sampling_forward(points, nearest_picked, index, b=2, n=8, m=5)
    between = [[squares(point, scene) for point in scene] for scene in points.tolist()]
    assert index.tolist() == [furthest(scene, 5) for scene in between]
    assert nearest_picked[0].tolist() == [min(row[i] for i in index[0].tolist()[:4]) for row in between[0]]
    assert torch.equal(mmcv_ops.furthest_point_sample_with_dist(torch.tensor(between), 5), index)
    assert mmcv_ops.furthest_point_sample_with_dist(torch.tensor(between), 0).shape == (2, 0)


@pytest.mark.parametrize('make', [draw, grid])
def test_chamfer_distance(mmcv_ops, generator, device, make):
    first, second = make(generator, 2, 4, 2), make(generator, 2, 6, 2)
    found = [t.cpu() for t in mmcv_ops.chamfer_distance(first.to(device), second.to(device))]
    for points, others, distance, index in ((first, second, *found[::2]), (second, first, *found[1::2])):
        for b in range(2):
            for n, point in enumerate(points[b].tolist()):
                there = squares(point, others[b].tolist())
                assert distance[b, n].item() == pytest.approx(min(there))
                assert index[b, n] == there.index(min(there))


def test_chamfer_distance_gradient(ext, mmcv_ops, generator):
    first, second = draw(generator, 2, 4, 2).requires_grad_(), draw(generator, 2, 6, 2).requires_grad_()
    between = (first[:, :, None] - second[:, None]).square().sum(3)
    (near_first, index_first), (near_second, index_second) = between.min(2), between.min(1)
    flows = draw(generator, 2, 4), draw(generator, 2, 6)
    expected = torch.autograd.grad((near_first, near_second), (first, second), flows)
    found = torch.zeros(2, 4, 2).double(), torch.zeros(2, 6, 2).double()  # mmcv's function has float32 here
    ext.chamfer_distance_backward(first, second, index_first.int(), index_second.int(), *flows, *found)
    torch.testing.assert_close(found, expected)
    empty = mmcv_ops.chamfer_distance(torch.zeros(1, 0, 2), torch.zeros(1, 0, 2))
    assert [d.shape for d in empty] == [(1, 0)] * 4


def test_shift_along_time(mmcv_ops, generator, device):
    frames, shift = draw(generator, 2, 3, 4, 2), torch.tensor([[1, -2], [0, 5]]).int()
    leaf = frames.clone().to(device).requires_grad_()
    found = mmcv_ops.tin_shift(leaf, shift.to(device))
    expected = torch.zeros_like(frames)
    expected[0, 1:, :2], expected[0, :1, 2:] = frames[0, :2, :2], frames[0, 2:, 2:]
    expected[1, :, :2] = frames[1, :, :2]
    assert torch.equal(found.cpu(), expected)
    # as in mmcv: the gradient has the same shift
    (found * frames.to(device)).sum().backward()
    assert torch.equal(leaf.grad.cpu(), expected)
    assert mmcv_ops.tin_shift(torch.zeros(0, 3, 4, 2), shift[:0]).shape == (0, 3, 4, 2)
