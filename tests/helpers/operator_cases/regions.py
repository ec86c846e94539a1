# Copyright (c) addp_mm contributors. Apache-2.0.
"""Calls of the operators that sample regions of a map."""

import torch

from helpers.operator_cases.inputs import OperatorCase


def roi_align(make):
    maps, rois = make.maps(), make.with_image(make.boxes(20))
    for mode in (0, 1):
        for aligned in (True, False):
            for ratio in (0, 2):
                numbers = (3, 3, 0.5, ratio, mode, aligned)
                out, y, x = (make.zeros(20, 4, 3, 3) for _ in range(3))
                yield OperatorCase('roi_align_forward', (maps, rois, out, y, x, *numbers), (2, 3, 4))
                make.ext.roi_align_forward(maps, rois, out, y, x, *numbers)
                args = (make.randn(20, 4, 3, 3), rois, y, x, make.zeros(2, 4, 20, 24), *numbers)
                yield OperatorCase('roi_align_backward', args, (4,))


def roi_pool(make):
    maps, rois = make.maps(), make.with_image(make.boxes(20))
    pooled, argmax = make.zeros(20, 4, 3, 3), make.zeros(20, 4, 3, 3, dtype=torch.int)
    yield OperatorCase('roi_pool_forward', (maps, rois, pooled.clone(), argmax.clone(), 3, 3, 0.5), (2, 3))
    make.ext.roi_pool_forward(maps, rois, pooled, argmax, 3, 3, 0.5)
    args = (make.randn(20, 4, 3, 3), rois, argmax, make.zeros(2, 4, 20, 24), 3, 3, 0.5)
    yield OperatorCase('roi_pool_backward', args, (3,))


def deform_roi_pool(make):
    maps, rois, shifts = make.maps(), make.with_image(make.boxes(20)), make.randn(20, 2, 3, 3)
    numbers = (3, 3, 0.5, 2, 0.1)
    yield OperatorCase('deform_roi_pool_forward', (maps, rois, shifts, make.zeros(20, 4, 3, 3), *numbers), (3,))
    grads = make.zeros(2, 4, 20, 24), make.zeros(20, 2, 3, 3)
    args = (make.randn(20, 4, 3, 3), maps, rois, shifts, *grads, *numbers)
    yield OperatorCase('deform_roi_pool_backward', args, (4, 5))


def roi_align_rotated(make):
    maps, rois = make.maps(), make.with_image(make.rotated_boxes(20))
    for numbers in ((3, 3, 0.5, 0, True, True), (3, 3, 0.5, 2, False, False)):
        yield OperatorCase('roi_align_rotated_forward', (maps, rois, make.zeros(20, 4, 3, 3), *numbers), (2,))
        args = (make.randn(20, 4, 3, 3), rois, make.zeros(2, 4, 20, 24), *numbers)
        yield OperatorCase('roi_align_rotated_backward', args, (2,))
    for numbers in ((3, 3, 0.5, 0, 2, True), (3, 3, 0.5, 2, 4, False)):
        yield OperatorCase('riroi_align_rotated_forward', (maps, rois, make.zeros(20, 4, 3, 3), *numbers), (2,))
        args = (make.randn(20, 4, 3, 3), rois, make.zeros(2, 4, 20, 24), *numbers)
        yield OperatorCase('riroi_align_rotated_backward', args, (2,))


def rotated_feature_align(make):
    anchors, none = make.rotated_boxes(960, 100).view(2, 20, 24, 5), make.zeros(2, 4, 20, 24)
    for points in (1, 5):
        yield OperatorCase('rotated_feature_align_forward', (make.maps(), anchors, none.clone(), 0.2, points), (2,))
        yield OperatorCase('rotated_feature_align_backward', (make.maps(), anchors, none.clone(), 0.2, points), (2,))


def bezier_align(make):
    curves = make.with_image(make.rand(20, 16) * 50 - 5)
    for aligned in (True, False):
        for ratio in (0, 2):
            numbers = (3, 5, 0.5, ratio, aligned)
            yield OperatorCase('bezier_align_forward', (make.maps(), curves, make.zeros(20, 4, 3, 5), *numbers), (2,))
            args = (make.randn(20, 4, 3, 5), curves, make.zeros(2, 4, 20, 24), *numbers)
            yield OperatorCase('bezier_align_backward', args, (2,))


def border_align(make):
    maps, boxes = make.maps(), make.boxes(20).view(2, 10, 4)
    pooled, best = make.zeros(2, 1, 10, 4), make.zeros(2, 1, 10, 4, dtype=torch.int)
    yield OperatorCase('border_align_forward', (maps, boxes, pooled.clone(), best.clone(), 5), (2, 3))
    make.ext.border_align_forward(maps, boxes, pooled, best, 5)
    args = (make.randn(2, 1, 10, 4), boxes, best, make.zeros(2, 4, 20, 24), 5)
    yield OperatorCase('border_align_backward', args, (3,))


def prroi_pool(make):
    maps, rois, numbers = make.maps(), make.with_image(make.boxes(20)), (3, 3, 0.5)
    pooled, flow = make.zeros(20, 4, 3, 3), make.randn(20, 4, 3, 3)
    yield OperatorCase('prroi_pool_forward', (maps, rois, pooled.clone(), *numbers), (2,))
    make.ext.prroi_pool_forward(maps, rois, pooled, *numbers)
    yield OperatorCase('prroi_pool_backward', (flow, rois, make.zeros(2, 4, 20, 24), *numbers), (2,))
    yield OperatorCase('prroi_pool_coor_backward', (pooled, flow, maps, rois, make.zeros(20, 5), *numbers), (4,))


GROUPS = (
    roi_align,
    roi_pool,
    deform_roi_pool,
    roi_align_rotated,
    rotated_feature_align,
    bezier_align,
    border_align,
    prroi_pool,
)
