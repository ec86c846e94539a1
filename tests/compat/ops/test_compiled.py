# Copyright (c) addp_mm contributors. Apache-2.0.
"""Each operator against mmcv's compiled one, if the installed mmcv has compiled operators."""

import importlib.machinery
import importlib.util

import pytest
import torch
from helpers.plain_polygons import corners_of


def compiled_ext():
    spec = importlib.util.find_spec('mmcv')
    where = spec.submodule_search_locations if spec else None
    spec = importlib.machinery.PathFinder.find_spec('mmcv._ext', where) if where else None
    if spec is None:
        return None
    return importlib.import_module('mmcv._ext')


COMPILED = compiled_ext()
pytestmark = pytest.mark.skipif(COMPILED is None, reason='needs an mmcv with compiled operators')


def cases(device):
    """Name, arguments, and the positions of the arguments that are filled."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).to(device)

    def zeros(*shape, dtype=torch.float32):
        return torch.zeros(*shape, dtype=dtype, device=device)

    corner = torch.rand(400, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 2 + torch.rand(400, 2, generator=generator) * 30], 1).to(device)
    scores = (torch.rand(400, generator=generator) * 20).floor().div(20).to(device)
    rois = torch.cat([torch.randint(2, (20, 1), generator=generator).to(device), boxes[:20]], 1)
    features = draw(2, 4, 20, 24)
    for offset in (0, 1):
        yield 'nms', (boxes, scores, 0.4, offset), ()
        yield 'bbox_overlaps', (boxes[:30], boxes[30:50], zeros(30, 20), 0, False, offset), (2,)
        if device == 'cpu':
            for method in range(3):
                yield 'softnms', (boxes, scores, zeros(400, 5), 0.4, 0.5, 0.05, method, offset), (2,)
    if device == 'cpu':
        yield 'nms_match', (torch.cat([boxes, scores[:, None]], 1), 0.4), ()
    for mode in (0, 1):
        for aligned in (True, False):
            for ratio in (0, 2):
                numbers = (3, 3, 0.5, ratio, mode, aligned)
                out, y, x = zeros(20, 4, 3, 3), zeros(20, 4, 3, 3), zeros(20, 4, 3, 3)
                yield 'roi_align_forward', (features, rois, out, y, x, *numbers), (2, 3, 4)
                COMPILED.roi_align_forward(features, rois, out, y, x, *numbers)
                yield 'roi_align_backward', (draw(20, 4, 3, 3), rois, y, x, zeros(2, 4, 20, 24), *numbers), (4,)
    weight, offsets, mask, bias = draw(6, 2, 3, 3), draw(2, 36, 20, 24), draw(2, 18, 20, 24), draw(6)
    offsets[0] = 0
    none, grad = zeros(0), draw(2, 6, 20, 24)
    one = (3, 3, 1, 1, 1, 1, 1, 1, 2, 2)
    yield 'deform_conv_forward', (features, weight, offsets, zeros(2, 6, 20, 24), none, none, *one, 2), (3,)
    yield (
        'deform_conv_backward_input',
        (features, offsets, grad.clone(), zeros(2, 4, 20, 24), zeros(2, 36, 20, 24), weight, none, *one, 2),
        (3, 4),
    )
    yield (
        'deform_conv_backward_parameters',
        (features, offsets, grad.clone(), zeros(6, 2, 3, 3), none, none, *one, 1.0, 2),
        (3,),
    )
    yield (
        'modulated_deform_conv_forward',
        (features, weight, bias, none, offsets, mask, zeros(2, 6, 20, 24), none, *one, True),
        (6,),
    )
    yield (
        'modulated_deform_conv_backward',
        (
            features,
            weight,
            bias,
            none,
            offsets,
            mask,
            none,
            zeros(2, 4, 20, 24),
            zeros(6, 2, 3, 3),
            zeros(6),
            zeros(2, 36, 20, 24),
            zeros(2, 18, 20, 24),
            grad.clone(),
            *one,
            True,
        ),
        (7, 8, 9, 10, 11),
    )
    for kind in (0, 1):
        yield 'psamask_forward', (draw(2, 35, 4, 6), zeros(2, 24, 4, 6), kind, 2, 4, 6, 5, 7, 2, 3), (1,)
        yield 'psamask_backward', (draw(2, 24, 4, 6), zeros(2, 35, 4, 6), kind, 2, 4, 6, 5, 7, 2, 3), (1,)
    yield from rotated_cases(draw, zeros, features, scores, generator)
    yield from curve_cases(draw, zeros, features, generator)
    if device == 'cpu':
        yield from cpu_cases(zeros, generator)
    if device == 'cuda':
        yield from cuda_cases(draw, zeros, features, rois, generator)
        yield from rotated_cuda_cases(draw, zeros, features, generator)
        yield from other_cuda_cases(draw, zeros, features, rois, generator)


def rotated_boxes(count, generator, size=60):
    """Boxes x, y, width, height, angle."""
    sides = 2 + torch.rand(count, 2, generator=generator) * size / 2
    angle = torch.rand(count, 1, generator=generator) * 7 - 3.5
    return torch.cat([torch.rand(count, 2, generator=generator) * size, sides, angle], 1)


def rectangles(boxes):
    """Corners of rotated boxes, for which mmcv's test of points in a quadrilateral is exact."""
    return torch.tensor([[v for corner in corners_of(box) for v in corner] for box in boxes.tolist()])


def rotated_cases(draw, zeros, features, scores, generator):
    """Operators of rotated boxes."""
    boxes = rotated_boxes(400, generator)
    quads, none = rectangles(boxes).to(features), zeros(0, dtype=torch.long)
    boxes = boxes.to(features)
    order = scores.sort(0, descending=True)[1]
    for threshold in (0.1, 0.5):
        yield 'nms_rotated', (boxes, scores, order, boxes[order], none, threshold, False), ()
        yield 'nms_quadri', (quads, scores, order, quads[order], threshold, False), ()
    for mode in (0, 1):
        yield 'box_iou_rotated', (boxes[:30], boxes[30:50], zeros(600), mode, False), (2,)
        yield 'box_iou_rotated', (boxes[:30], boxes[30:60], zeros(30), mode, True), (2,)
        yield 'box_iou_quadri', (quads[:30], quads[30:50], zeros(600), mode, False), (2,)
    rois = torch.cat([torch.randint(2, (20, 1), generator=generator).to(boxes), boxes[:20]], 1)
    for numbers in ((3, 3, 0.5, 0, True, True), (3, 3, 0.5, 2, False, False)):
        yield 'roi_align_rotated_forward', (features, rois, zeros(20, 4, 3, 3), *numbers), (2,)
        yield 'roi_align_rotated_backward', (draw(20, 4, 3, 3), rois, zeros(2, 4, 20, 24), *numbers), (2,)
    anchors = rotated_boxes(960, generator, 100).view(2, 20, 24, 5).to(features)
    for points in (1, 5):
        yield 'rotated_feature_align_forward', (features, anchors, zeros(2, 4, 20, 24), 0.2, points), (2,)
        yield 'rotated_feature_align_backward', (draw(2, 4, 20, 24), anchors, zeros(2, 4, 20, 24), 0.2, points), (2,)
    moved = torch.stack([torch.randperm(18, generator=generator) for _ in range(4)], -1) + 1
    moved = moved.view(2, 3, 3, 4).int().to(features.device)
    yield 'active_rotated_filter_forward', (draw(2, 3, 2, 3, 3), moved, zeros(8, 6, 3, 3)), (2,)
    yield 'active_rotated_filter_backward', (draw(8, 6, 3, 3), moved, zeros(2, 3, 2, 3, 3)), (2,)


def rotated_cuda_cases(draw, zeros, features, generator):
    """Operators of rotated boxes that mmcv has for CUDA only."""
    boxes = rotated_boxes(20, generator)
    quads = rectangles(boxes).to(features)
    rois = torch.cat([torch.randint(2, (20, 1), generator=generator), boxes], 1).to(features)
    for numbers in ((3, 3, 0.5, 0, 2, True), (3, 3, 0.5, 2, 4, False)):
        yield 'riroi_align_rotated_forward', (features, rois, zeros(20, 4, 3, 3), *numbers), (2,)
        yield 'riroi_align_rotated_backward', (draw(20, 4, 3, 3), rois, zeros(2, 4, 20, 24), *numbers), (2,)
    points = (torch.rand(20, 18, generator=generator) * 60).to(features)
    yield 'convex_iou', (points, quads, zeros(20, 20)), (2,)
    yield 'convex_giou', (points, quads, zeros(20, 19)), (2,)
    yield 'min_area_polygons', (points, zeros(20, 8)), (1,)
    yield 'points_in_polygons_forward', (draw(300, 2) * 30, quads, zeros(300, 20)), (2,)
    ring = draw(2, 5, 24, 2)
    mask = torch.zeros(2, 5, 24, dtype=torch.bool, device=features.device)
    mask[..., :3] = mask[..., 8:12] = True
    yield 'diff_iou_rotated_sort_vertices_forward', (ring, mask, mask.sum(2).int()), ()


def curve_cases(draw, zeros, features, generator):
    """Regions between two curves."""
    curves = (torch.rand(20, 17, generator=generator) * 50 - 5).to(features.device)
    curves[:, 0] = torch.arange(20) % 2
    for aligned in (True, False):
        for ratio in (0, 2):
            numbers = (3, 5, 0.5, ratio, aligned)
            yield 'bezier_align_forward', (features, curves, zeros(20, 4, 3, 5), *numbers), (2,)
            yield 'bezier_align_backward', (draw(20, 4, 3, 5), curves, zeros(2, 4, 20, 24), *numbers), (2,)


def cpu_cases(zeros, generator):
    """Operators that mmcv has for the CPU only, or whose order differs on a GPU."""
    mask = torch.rand(24, 31, generator=generator) < 0.8
    labels = zeros(24, 31, dtype=torch.int)
    labels[3:5, 4:9], labels[5:8, 8:10], labels[15, 20] = 1, 2, 3
    kernels = torch.stack([mask, labels > 0]).byte()
    yield 'contour_expand', (kernels, labels, 2, 4), ()
    boxes = torch.rand(10, 7, generator=generator) * 4
    points = torch.rand(200, 3, generator=generator) * 4
    yield 'points_in_boxes_cpu_forward', (boxes, points, zeros(10, 200, dtype=torch.int)), (2,)
    size, bounds = torch.tensor([0.5, 0.7, 3.0]), torch.tensor([0.0, 0, 0, 3, 3, 3])
    yield 'dynamic_voxelize_forward', (points, size, bounds, zeros(200, 3, dtype=torch.int), 3), (3,)
    voxels = zeros(15, 4, 3), zeros(15, 3, dtype=torch.int), zeros(15, dtype=torch.int), zeros(1, dtype=torch.long)[0]
    yield 'hard_voxelize_forward', (points, size, bounds, *voxels, 4, 15, 3, True), (3, 4, 5, 6)


def other_cuda_cases(draw, zeros, features, rois, generator):
    """Other operators that mmcv has for CUDA only."""
    boxes, pooled, best = rois[:, 1:].view(2, 10, 4), zeros(2, 1, 10, 4), zeros(2, 1, 10, 4, dtype=torch.int)
    yield 'border_align_forward', (features, boxes, pooled, best, 5), (2, 3)
    COMPILED.border_align_forward(features, boxes, pooled, best, 5)
    yield 'border_align_backward', (draw(2, 1, 10, 4), boxes, best, zeros(2, 4, 20, 24), 5), (3,)
    precise, flow = zeros(20, 4, 3, 3), draw(20, 4, 3, 3)
    yield 'prroi_pool_forward', (features, rois, precise, 3, 3, 0.5), (2,)
    COMPILED.prroi_pool_forward(features, rois, precise, 3, 3, 0.5)
    yield 'prroi_pool_backward', (flow, rois, zeros(2, 4, 20, 24), 3, 3, 0.5), (2,)
    yield 'prroi_pool_coor_backward', (precise, flow, features, rois, zeros(20, 5), 3, 3, 0.5), (4,)
    other, numbers = draw(2, 4, 20, 24), (1, 1, 5, 5, 0, 0, 1, 1, 2, 2, 1, 1)
    yield 'correlation_forward', (features, other, zeros(2, 5, 5, 20, 24), *numbers), (2,)
    flow, grads = draw(2, 5, 5, 20, 24), (zeros(2, 4, 20, 24), zeros(2, 4, 20, 24))
    yield 'correlation_backward', (flow, features, other, *grads, *numbers), (3, 4)
    yield 'upfirdn2d', (features, draw(3, 4), 2, 1, 1, 2, 2, 1, 0, 3, False, 1.5), ()
    yield 'fused_bias_leakyrelu', (features, draw(4), zeros(0), 3, 0, 0.2, 1.5), ()
    for act in range(1, 10):
        yield 'bias_act', (features, draw(4), zeros(0), zeros(0), zeros(0), 0, 1, act, 0.2, 1.5, 1.0), ()
    first, second = draw(2, 30, 2), draw(2, 40, 2)
    found = zeros(2, 30), zeros(2, 40), zeros(2, 30, dtype=torch.int), zeros(2, 40, dtype=torch.int)
    yield 'chamfer_distance_forward', (first, second, *found), (2, 3, 4, 5)
    points, centres = draw(2, 50, 3), draw(2, 20, 3)
    index = zeros(2, 20, 3, dtype=torch.int)
    yield 'three_nn_forward', (centres, points, zeros(2, 20, 3), index, 2, 20, 50), (2, 3)
    yield 'knn_forward', (points, centres, index, zeros(2, 20, 3), 2, 50, 20, 3), (2, 3)
    yield 'ball_query_forward', (centres, points, index, 2, 50, 20, 0.2, 1.5, 3), (2,)
    picked = zeros(2, 9, dtype=torch.int)
    yield 'furthest_point_sampling_forward', (points, zeros(2, 50) + 1e10, picked, 2, 50, 9), (1, 2)
    solid = (torch.rand(10, 7, generator=generator) * 4 + 0.1).to(features.device)
    yield 'iou3d_boxes_overlap_bev_forward', (solid, solid.flip(0), zeros(10, 10)), (2,)


def cuda_cases(draw, zeros, features, rois, generator):
    """Operators that mmcv has for CUDA only."""
    pooled, argmax = zeros(20, 4, 3, 3), zeros(20, 4, 3, 3, dtype=torch.int)
    yield 'roi_pool_forward', (features, rois, pooled, argmax, 3, 3, 0.5), (2, 3)
    COMPILED.roi_pool_forward(features, rois, pooled, argmax, 3, 3, 0.5)
    yield 'roi_pool_backward', (draw(20, 4, 3, 3), rois, argmax, zeros(2, 4, 20, 24), 3, 3, 0.5), (3,)
    shifts = draw(20, 2, 3, 3)
    yield 'deform_roi_pool_forward', (features, rois, shifts, zeros(20, 4, 3, 3), 3, 3, 0.5, 2, 0.1), (3,)
    yield (
        'deform_roi_pool_backward',
        (draw(20, 4, 3, 3), features, rois, shifts, zeros(2, 4, 20, 24), zeros(20, 2, 3, 3), 3, 3, 0.5, 2, 0.1),
        (4, 5),
    )
    target = torch.randint(5, (50,), generator=generator).cuda()
    logits = draw(50, 5)
    for name in ('forward', 'backward'):
        yield f'sigmoid_focal_loss_{name}', (logits, target, zeros(0), zeros(50, 5), 2.0, 0.25), (3,)
    yield 'softmax_focal_loss_forward', (logits.softmax(1), target, zeros(0), zeros(50), 2.0, 0.25), (3,)
    yield (
        'softmax_focal_loss_backward',
        (logits.softmax(1), target, zeros(0), zeros(50), zeros(50, 5), 2.0, 0.25),
        (3, 4),
    )
    shapes, starts = torch.tensor([[6, 8], [3, 4]]).cuda(), torch.tensor([0, 48]).cuda()
    value, weights = draw(2, 60, 2, 8), draw(2, 7, 2, 2, 4).softmax(-1)
    locations = torch.rand(2, 7, 2, 2, 4, 2, generator=generator).cuda()
    yield 'ms_deform_attn_forward', (value, shapes, starts, locations, weights, 2), ()
    yield (
        'ms_deform_attn_backward',
        (
            value,
            shapes,
            starts,
            locations,
            weights,
            draw(2, 7, 16),
            zeros(2, 60, 2, 8),
            zeros(2, 7, 2, 2, 4, 2),
            zeros(2, 7, 2, 2, 4),
            2,
        ),
        (6, 7, 8),
    )
    masks = draw(2, 25, 40, 48)
    yield 'carafe_naive_forward', (features, masks, zeros(2, 4, 40, 48), 5, 1, 2), (2,)
    yield (
        'carafe_naive_backward',
        (draw(2, 4, 40, 48), features, masks, zeros(2, 4, 20, 24), zeros(2, 25, 40, 48), 5, 1, 2),
        (3, 4),
    )
    rows, columns = torch.tensor([0, 3, 19]).cuda(), torch.tensor([0, 5, 23]).cuda()
    yield 'masked_im2col_forward', (features[:1], rows, columns, zeros(36, 3), 3, 3, 1, 1), (3,)
    yield 'masked_col2im_forward', (draw(4, 3), rows, columns, zeros(1, 4, 20, 24), 20, 24, 4), (3,)


def test_equal(ext, device):
    for name, args, filled in cases(device):
        mine = [a.clone() if torch.is_tensor(a) else a for a in args]
        theirs = [a.clone() if torch.is_tensor(a) else a for a in args]
        results = getattr(ext, name)(*mine), getattr(COMPILED, name)(*theirs)
        if results[1] is not None:
            torch.testing.assert_close(*results, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f'{name}: {text}')
        for position in filled:
            torch.testing.assert_close(
                mine[position], theirs[position], atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f'{name}: {text}'
            )
