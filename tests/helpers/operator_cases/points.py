# Copyright (c) addp_mm contributors. Apache-2.0.
"""Calls of the operators for points in space, and for text."""

import torch

from helpers.operator_cases.inputs import OperatorCase


def neighbours(make):
    points, centres, found = make.randn(2, 50, 3), make.randn(2, 20, 3), make.zeros(2, 20, 3)
    index = make.zeros(2, 20, 3, dtype=torch.int)
    yield OperatorCase('three_nn_forward', (centres, points, found, index, 2, 20, 50), (2, 3))
    yield OperatorCase('knn_forward', (points, centres, index, found, 2, 50, 20, 3), (2, 3))
    yield OperatorCase('ball_query_forward', (centres, points, index, 2, 50, 20, 0.2, 1.5, 3), (2,))
    scenes = centres.flatten(0, 1), make.counts(25, 15), points.flatten(0, 1), make.counts(40, 60)
    index = make.zeros(40, 3, dtype=torch.int)
    yield OperatorCase('stack_ball_query_forward', (*scenes, index, 1.5, 3), (4,))


def samples(make):
    points, picked = make.randn(2, 50, 3), make.zeros(2, 9, dtype=torch.int)
    furthest = make.zeros(2, 50) + 1e10
    yield OperatorCase('furthest_point_sampling_forward', (points, furthest, picked, 2, 50, 9), (1, 2))
    between = (points[:, :, None] - points[:, None]).square().sum(-1)
    args = (between, furthest, picked, 2, 50, 9)
    yield OperatorCase('furthest_point_sampling_with_dist_forward', args, (1, 2))


def chamfer_distance(make):
    first, second = make.randn(2, 30, 2), make.randn(2, 40, 2)
    found = [make.zeros(2, 30), make.zeros(2, 40), *(make.zeros(2, n, dtype=torch.int) for n in (30, 40))]
    yield OperatorCase('chamfer_distance_forward', (first, second, *found), (2, 3, 4, 5))
    make.ext.chamfer_distance_forward(first, second, *found)
    flows, grads = (make.randn(2, 30), make.randn(2, 40)), (torch.zeros_like(first), torch.zeros_like(second))
    yield OperatorCase('chamfer_distance_backward', (first, second, *found[2:], *flows, *grads), (6, 7))


def gathered(make):
    """Features of some points, and of groups of points."""
    points, one, groups = make.randn(2, 4, 30), make.whole(30, 2, 9).int(), make.whole(30, 2, 9, 5).int()
    yield OperatorCase('gather_points_forward', (points, one, make.zeros(2, 4, 9), 2, 4, 30, 9), (2,))
    args = (make.randn(2, 4, 9), one, torch.zeros_like(points), 2, 4, 30, 9)
    yield OperatorCase('gather_points_backward', args, (2,))
    yield OperatorCase('group_points_forward', (points, groups, make.zeros(2, 4, 9, 5), 2, 4, 30, 9, 5), (2,))
    args = (make.randn(2, 4, 9, 5), groups, torch.zeros_like(points), 2, 4, 30, 9, 5)
    yield OperatorCase('group_points_backward', args, (2,))
    features, index = make.randn(30, 4), make.whole(12, 9, 5).int()
    counts, index_counts = make.counts(12, 18), make.counts(4, 5)
    args = (features, counts, index, index_counts, make.zeros(9, 4, 5), 2, 4, 9, 5)
    yield OperatorCase('stack_group_points_forward', args, (4,))
    args = (make.randn(9, 4, 5), index, index_counts, counts, make.zeros(30, 4), 2, 4, 9, 30, 5)
    yield OperatorCase('stack_group_points_backward', args, (4,))


def interpolated(make):
    points, index, weights = make.randn(2, 4, 8), make.whole(8, 2, 30, 3).int(), make.rand(2, 30, 3)
    args = (points, index, weights, make.zeros(2, 4, 30), 2, 4, 8, 30)
    yield OperatorCase('three_interpolate_forward', args, (3,))
    args = (make.randn(2, 4, 30), index, weights, torch.zeros_like(points), 2, 4, 30, 8)
    yield OperatorCase('three_interpolate_backward', args, (3,))


def scored(make):
    """PAConv: 10 points, 6 centres, 3 weight matrices, 4 neighbours, 5 channels."""
    points, centres, scores = make.randn(2, 10, 3, 5), make.randn(2, 10, 3, 5), make.rand(2, 6, 4, 3)
    numbers, index = (2, 10, 6, 3, 4, 5, 0), make.whole(10, 2, 6, 4)
    args = (points, centres, scores, index, make.zeros(2, 5, 6, 4), *numbers)
    yield OperatorCase('assign_score_withk_forward', args, (4,))
    grads = [torch.zeros_like(one) for one in (points, centres, scores)]
    args = (make.randn(2, 5, 6, 4), points, centres, scores, index, *grads, *numbers)
    yield OperatorCase('assign_score_withk_backward', args, (5, 6, 7))


def points_in_boxes(make):
    boxes, points = make.rand(2, 10, 7) * 4, make.rand(2, 200, 3) * 4
    if make.device == 'cpu':
        args = (boxes[0], points[0], make.zeros(10, 200, dtype=torch.int))
        yield OperatorCase('points_in_boxes_cpu_forward', args, (2,))
    none = make.zeros(2, 200, dtype=torch.int)
    yield OperatorCase('points_in_boxes_part_forward', (boxes, points, none - 1), (2,))
    yield OperatorCase('points_in_boxes_all_forward', (boxes, points, make.zeros(2, 200, 10, dtype=torch.int)), (2,))


def pooled_points(make):
    boxes, points, features = make.rand(2, 10, 7) * 4, make.rand(2, 200, 3) * 4, make.randn(2, 200, 5)
    args = (points, boxes, features, make.zeros(2, 10, 6, 8), make.zeros(2, 10, dtype=torch.int))
    yield OperatorCase('roipoint_pool3d_forward', args, (3, 4))
    for method in (0, 1):
        best, inside = (make.zeros(10, 2, 3, 2, n, dtype=torch.int) for n in (5, 40))
        pooled, grad = make.zeros(10, 2, 3, 2, 5), make.zeros(200, 5)
        args = (boxes[0], points[0], features[0], best, inside, pooled, method)
        filled = (3, 4, 5) if method == 0 else (4, 5)
        yield OperatorCase(
            'roiaware_pool3d_forward', tuple(a.clone() if torch.is_tensor(a) else a for a in args), filled
        )
        make.ext.roiaware_pool3d_forward(*args)
        yield OperatorCase('roiaware_pool3d_backward', (inside, best, make.randn(10, 2, 3, 2, 5), grad, method), (3,))


def voxels(make):
    points, size = make.rand(200, 3) * 4, torch.tensor([0.5, 0.7, 3.0]).to(make.device)
    bounds = torch.tensor([0.0, 0, 0, 3, 3, 3]).to(make.device)
    args = (points, size, bounds, make.zeros(200, 3, dtype=torch.int), 3)
    yield OperatorCase('dynamic_voxelize_forward', args, (3,))
    kept = make.zeros(15, 4, 3), make.zeros(15, 3, dtype=torch.int), make.zeros(15, dtype=torch.int)
    number = make.zeros((), dtype=torch.long)
    args = (points, size, bounds, *kept, number, 4, 15, 3, True)
    yield OperatorCase('hard_voxelize_forward', args, (3, 4, 5, 6))
    features, cells = make.randn(60, 4), make.whole(3, 60, 3, dtype=torch.int) - 1
    cells[0] = -1  # mmcv's kernel takes the first of the sorted voxels as that of the points outside
    for reduction in ('max', 'sum', 'mean'):
        yield OperatorCase('dynamic_point_to_voxel_forward', (features, cells, reduction))
        reduced, _, cell, count = make.ext.dynamic_point_to_voxel_forward(features, cells, reduction)
        args = (torch.zeros_like(features), make.randn(*reduced.shape), features, reduced, cell, count, reduction)
        yield OperatorCase('dynamic_point_to_voxel_backward', args, (0,))


def text(make):
    """Kernels of words that grow, for the CPU only."""
    if make.device != 'cpu':
        return
    labels = make.zeros(24, 31, dtype=torch.int)
    labels[3:5, 4:9], labels[5:8, 8:10], labels[15, 20] = 1, 2, 3
    kernels = torch.stack([make.rand(24, 31) < 0.8, labels > 0]).byte()
    yield OperatorCase('contour_expand', (kernels, labels, 2, 4))
    score, embedding = make.rand(24, 31), make.randn(24, 31, 4)
    contour = (labels > 0).byte()
    yield OperatorCase('pixel_group', (score, score > 0.3, embedding, labels, contour, 4, 2.0))


GROUPS = (
    neighbours,
    samples,
    chamfer_distance,
    gathered,
    interpolated,
    scored,
    points_in_boxes,
    pooled_points,
    voxels,
    text,
)
