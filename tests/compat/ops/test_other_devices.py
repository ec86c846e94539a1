# Copyright (c) addp_mm contributors. Apache-2.0.
"""Operators keep to the device of their tensors; where it lacks a kernel, the CPU computes."""

import logging
import sys

import pytest
import torch
from helpers.other_device import DEVICE, OtherDevice

from addp_mm.compat.ops import fallback

G = torch.Generator().manual_seed(0)


def rand(*shape):
    return torch.rand(*shape, generator=G)


CORNERS = rand(40, 2) * 30
BOXES = torch.cat([CORNERS, CORNERS + 1 + rand(40, 2) * 20], 1)
SCORES, MAPS, POINTS = rand(40), rand(2, 4, 12, 16), rand(2, 30, 3)
ROIS = torch.cat([torch.arange(10).remainder(2)[:, None], BOXES[:10] / 2], 1)
TURNED = torch.cat([CORNERS, 2 + rand(40, 2) * 10, rand(40, 1) * 3], 1)
QUADS = BOXES[:, [0, 1, 2, 1, 2, 3, 0, 3]]
SETS = rand(20, 18) * 20
LABELS = torch.arange(20).remainder(4)
CUBES = torch.cat([rand(2, 3, 3), 0.3 + rand(2, 3, 4)], 2)
INDEX = torch.arange(24).remainder(30).view(2, 4, 3).int()
LEVELS = torch.tensor([[6, 8], [3, 4]])
ORIENTATIONS = torch.arange(1, 9).repeat(9)[: 4 * 3 * 3 * 8].view(1, 3, 3, 8).int()

CASES = {
    'nms': (lambda ops, b, s: ops.nms(b, s, 0.3), BOXES, SCORES),
    'nms, offset 1': (lambda ops, b, s: ops.nms(b, s, 0.3, offset=1), BOXES, SCORES),
    'soft_nms': (lambda ops, b, s: ops.soft_nms(b, s, 0.3), BOXES, SCORES),
    'batched_nms': (
        lambda ops, b, s, i: ops.batched_nms(b, s, i, dict(type='nms', iou_threshold=0.3)),
        BOXES,
        SCORES,
        torch.arange(40).remainder(3),
    ),
    'nms_rotated': (lambda ops, b, s: ops.nms_rotated(b, s, 0.3), TURNED, SCORES),
    'nms_quadri': (lambda ops, b, s: ops.nms_quadri(b, s, 0.3), QUADS, SCORES),
    'bbox_overlaps': (lambda ops, b, c: ops.bbox_overlaps(b, c), BOXES, BOXES[:9] + 1),
    'box_iou_rotated': (lambda ops, b, c: ops.box_iou_rotated(b, c), TURNED, TURNED[:9] + 1),
    'box_iou_quadri': (lambda ops, b, c: ops.box_iou_quadri(b, c), QUADS, QUADS[:9] + 1),
    'diff_iou_rotated_2d': (lambda ops, b, c: ops.diff_iou_rotated_2d(b[None], c[None]), TURNED, TURNED + 1),
    'convex_iou': (lambda ops, p, q: ops.convex_iou(p, q), SETS, QUADS),
    'min_area_polygons': (lambda ops, p: ops.min_area_polygons(p), SETS),
    'points_in_polygons': (lambda ops, p, q: ops.points_in_polygons(p, q), CORNERS, QUADS),
    'roi_align': (lambda ops, x, r: ops.roi_align(x, r, (2, 3), 0.5), MAPS, ROIS),
    'roi_align, max': (lambda ops, x, r: ops.roi_align(x, r, (2, 3), 0.5, 2, 'max'), MAPS, ROIS),
    'roi_pool': (lambda ops, x, r: ops.roi_pool(x, r, (2, 3), 0.5), MAPS, ROIS),
    'roi_align_rotated': (
        lambda ops, x, r: ops.roi_align_rotated(x, r, (2, 3), 0.5, 2),
        MAPS,
        torch.cat([ROIS[:, :1], TURNED[:10]], 1),
    ),
    'deform_roi_pool': (
        lambda ops, x, r, o: ops.deform_roi_pool(x, r, o, (2, 3), 0.5, 0, 0.1),
        MAPS,
        ROIS,
        rand(10, 2, 2, 3),
    ),
    'prroi_pool': (lambda ops, x, r: ops.prroi_pool(x, r, (2, 3), 0.5), MAPS, ROIS),
    'border_align': (lambda ops, x, b: ops.border_align(x, b, 3), rand(2, 8, 4, 5), BOXES.view(2, 20, 4) / 10),
    'bezier_align': (
        lambda ops, x, b: ops.bezier_align(x, b, (2, 3), 0.5, 1),
        MAPS,
        torch.cat([ROIS[:, :1], rand(10, 16) * 20], 1),
    ),
    'deform_conv2d': (
        lambda ops, x, o, w: ops.deform_conv2d(x, o, w, 1, 1),
        MAPS,
        rand(2, 18, 12, 16) - 0.5,
        rand(3, 4, 3, 3),
    ),
    'modulated_deform_conv2d': (
        lambda ops, x, o, m, w: ops.modulated_deform_conv2d(x, o, m, w, None, 1, 1),
        MAPS,
        rand(2, 18, 12, 16) - 0.5,
        rand(2, 9, 12, 16),
        rand(3, 4, 3, 3),
    ),
    'sigmoid_focal_loss': (lambda ops, x, y: ops.sigmoid_focal_loss(x, y, 2.0, 0.25), rand(20, 4), LABELS),
    'softmax_focal_loss': (lambda ops, x, y: ops.softmax_focal_loss(x, y, 2.0, 0.25), rand(20, 4), LABELS),
    'deformable attention': (
        lambda ops, v, shapes, start, where, weight: sys.modules[
            ops.MultiScaleDeformableAttention.__module__
        ].MultiScaleDeformableAttnFunction.apply(v, shapes, start, where, weight, 64),
        rand(2, 60, 2, 4),
        LEVELS,
        torch.tensor([0, 48]),
        rand(2, 5, 2, 2, 3, 2),
        rand(2, 5, 2, 2, 3),
    ),
    'carafe': (lambda ops, x, m: ops.carafe(x, m, 3, 1, 2), MAPS, rand(2, 9, 24, 32)),
    'carafe_naive': (lambda ops, x, m: ops.carafe_naive(x, m, 3, 1, 2), MAPS, rand(2, 9, 24, 32)),
    'psa_mask': (lambda ops, x: ops.PSAMask('collect', (5, 7))(x), rand(2, 35, 4, 6)),
    'correlation': (lambda ops, x, y: ops.Correlation(1, 2)(x, y), MAPS, MAPS + 1),
    'upfirdn2d': (lambda ops, x, f: ops.upfirdn2d(x, f, up=2), MAPS, rand(3, 3)),
    'tin_shift': (lambda ops, x, s: ops.tin_shift(x, s), rand(2, 3, 4, 2), torch.tensor([[1, -2], [0, 5]]).int()),
    'rotated_feature_align': (lambda ops, x, b: ops.rotated_feature_align(x, b), MAPS, (rand(2, 12, 16, 5) * 10)),
    'three_nn': (lambda ops, p, q: ops.three_nn(p, q), POINTS, POINTS + 0.1),
    'three_interpolate': (lambda ops, x, i, w: ops.three_interpolate(x, i, w), rand(2, 5, 30), INDEX, rand(2, 4, 3)),
    'knn': (lambda ops, p, q: ops.knn(3, p, q), POINTS, POINTS[:, :5].contiguous()),
    'ball_query': (lambda ops, p, q: ops.ball_query(0, 0.4, 4, p, q), POINTS, POINTS[:, :5].contiguous()),
    'furthest_point_sample': (lambda ops, p: ops.furthest_point_sample(p, 5), POINTS),
    'gather_points': (lambda ops, x, i: ops.gather_points(x, i), rand(2, 5, 30), INDEX[:, :, 0].contiguous()),
    'grouping_operation': (lambda ops, x, i: ops.grouping_operation(x, i), rand(2, 5, 30), INDEX),
    'chamfer_distance': (lambda ops, p, q: ops.chamfer_distance(p, q), POINTS[..., :2], POINTS[:, :7, 1:]),
    'points_in_boxes_part': (lambda ops, p, b: ops.points_in_boxes_part(p, b), POINTS, CUBES),
    'points_in_boxes_all': (lambda ops, p, b: ops.points_in_boxes_all(p, b), POINTS, CUBES),
    'boxes_overlap_bev': (lambda ops, b: ops.boxes_overlap_bev(b, b), CUBES[0]),
    'nms3d': (lambda ops, b, s: ops.nms3d(b, s, 0.1), CUBES.flatten(0, 1), SCORES[:6]),
    'voxelization': (lambda ops, p: ops.voxelization(p, (0.5, 0.5, 0.5), (0, 0, 0, 1, 1, 1), 4, 6), POINTS[0]),
    'bias_act': (lambda ops, x, b: ops.bias_act(x, b), MAPS, rand(4)),
}
WITHOUT_GRADIENT = ('soft_nms', 'voxelization', 'upfirdn2d')  # the filter of the last one has none


def computed(name, ops, tensors):
    """What a function returns, and the gradients of its inputs, on the CPU."""
    leaves = [t.detach().requires_grad_(t.is_floating_point() and name not in WITHOUT_GRADIENT) for t in tensors]
    found = CASES[name][0](ops, *leaves)
    found = [
        each for each in (found if isinstance(found, (tuple, list)) else [found]) if isinstance(each, torch.Tensor)
    ]
    for each in found:
        if each.grad_fn is not None:
            each.sum().backward(retain_graph=True)
    grads = [t.grad for t in leaves if t.grad is not None]
    assert len({t.device.type for t in (*tensors, *found, *grads)}) == 1
    return [t.detach().cpu() for t in (*found, *grads)]


@pytest.mark.parametrize('name', CASES)
def test_an_operator_keeps_to_its_device(name, mmcv_ops):
    tensors = CASES[name][1:]
    expected = computed(name, mmcv_ops, tensors)
    with OtherDevice():
        found = computed(name, mmcv_ops, [t.to(DEVICE) for t in tensors])
    torch.testing.assert_close(found, expected)


@pytest.fixture
def said(monkeypatch):
    """Texts of the warnings."""
    texts = []
    monkeypatch.setattr(fallback, '_FELL_BACK', set())
    monkeypatch.setattr('mmengine.logging.print_log', lambda text, logger, level: texts.append((level, text)))
    return texts


@pytest.mark.parametrize(
    'name, kernel, operators',
    [
        ('nms', 'torchvision::nms', ['nms']),
        ('roi_align', 'torchvision::roi_align', ['roi_align_forward']),
        ('deform_conv2d', 'torchvision::deform_conv2d', ['deform_conv_forward']),
        ('modulated_deform_conv2d', 'torchvision::_deform_conv2d_backward', ['modulated_deform_conv_backward']),
    ],
)
def test_a_missing_kernel_falls_back_to_the_cpu_and_is_said_once(name, kernel, operators, mmcv_ops, said):
    tensors = CASES[name][1:]
    expected = computed(name, mmcv_ops, tensors)
    with OtherDevice(missing=[kernel]):
        for _ in range(2):
            found = computed(name, mmcv_ops, [t.to(DEVICE) for t in tensors])
            torch.testing.assert_close(found, expected)
    assert [level for level, _ in said] == [logging.WARNING] * len(operators)
    for operator, (_, text) in zip(operators, said, strict=True):
        assert text.startswith(f"mmcv's operator {operator} is computed on the CPU, its tensors are copied from and to")
        assert kernel in text


def test_operators_of_numpy_run_on_the_cpu_and_fill_tensors_of_the_device(ext, said):
    filled, expected = torch.zeros(40, 5), torch.zeros(40, 5)
    settings = 0.3, 0.5, 1e-3, 1, 0
    kept = ext.softnms(BOXES, SCORES, expected, *settings)
    with OtherDevice():
        filled = filled.to(DEVICE)
        found = ext.softnms(BOXES.to(DEVICE), SCORES.to(DEVICE), filled, *settings)
        assert found.device == filled.device == DEVICE
        assert torch.equal(found.cpu(), kept)
        assert torch.equal(filled.cpu(), expected)
        table = torch.cat([BOXES, SCORES[:, None]], 1)
        assert ext.nms_match(table.to(DEVICE), 0.3) == ext.nms_match(table, 0.3)
    assert [text.split()[2] for _, text in said] == ['softnms', 'nms_match']
    assert {'softnms', 'nms_match', 'pixel_group', 'contour_expand', 'line_nms_forward'} == fallback.ON_CPU


def test_errors_that_are_no_missing_kernel_stay(said):
    def fails(x):
        raise RuntimeError('sizes differ')

    def fills_first(x):
        x += 1
        raise NotImplementedError('no kernel')

    def misses(x):
        raise RuntimeError("nms: Op is currently not supported on the device 'X'")

    with OtherDevice():
        x = torch.zeros(2, device=DEVICE)
        with pytest.raises(RuntimeError, match='sizes differ'):
            fallback.compute(fails, (x,), {})
        with pytest.raises(NotImplementedError):
            fallback.compute(fills_first, (x,), {})
        assert said == []
        with pytest.raises(RuntimeError, match='not supported'):  # on the CPU, too
            fallback.compute(misses, (x,), {})
    assert said == []


def test_the_doctor_finds_what_a_device_leaves_to_the_cpu(mmcv_ops, said):
    from addp_mm.doctor.operators import left_to_the_cpu

    always = ['contour_expand', 'line_nms', 'nms_match', 'pixel_group', 'softnms']
    missing = 'torchvision::nms', 'torchvision::_deform_conv2d_backward'
    with OtherDevice(missing), pytest.MonkeyPatch.context() as patch:
        # the real check leaves out the kind of this device
        patch.setattr('addp_mm.devices.is_accelerator', lambda device: device == DEVICE)
        found = left_to_the_cpu(DEVICE)
    assert found == sorted([*always, 'nms', 'deform_conv', 'modulated_deform_conv'])
    assert left_to_the_cpu(torch.device('cpu')) == []
