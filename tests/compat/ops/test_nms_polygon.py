# Copyright (c) addp_mm contributors. Apache-2.0.
import math

import pytest
import torch
from helpers.plain_polygons import corners_of


def boxes_and_scores(generator, count, size=30.0, levels=None):
    center = torch.rand(count, 2, generator=generator) * size
    sides = 2 + torch.rand(count, 2, generator=generator) * size / 4
    boxes = torch.cat([center, sides, torch.rand(count, 1, generator=generator) * 7], 1)
    scores = torch.rand(count, generator=generator)
    return boxes, (scores * levels).floor() / levels if levels else scores


def as_quads(boxes):
    return torch.tensor([[v for corner in corners_of(box) for v in corner] for box in boxes.tolist()])


def plain_nms(overlaps, scores, threshold):
    kept = []
    for index in scores.sort(0, descending=True)[1].tolist():
        if not any(overlaps[other, index] >= threshold for other in kept):
            kept.append(index)
    return kept


@pytest.mark.parametrize('kind', ['rotated', 'quadri'])
@pytest.mark.parametrize('count, levels', [(1, None), (60, None), (60, 5), (300, None)])
@pytest.mark.parametrize('threshold', [0.1, 0.5])
def test_nms_equals_a_plain_loop(mmcv_ops, generator, device, kind, count, levels, threshold):
    boxes, scores = boxes_and_scores(generator, count, levels=levels)
    if kind == 'quadri':
        boxes = as_quads(boxes)
    overlaps = getattr(mmcv_ops, f'box_iou_{kind}')(boxes, boxes)
    dets, keep = getattr(mmcv_ops, f'nms_{kind}')(boxes.to(device), scores.to(device), threshold)
    assert keep.tolist() == plain_nms(overlaps, scores.to(device), threshold)
    assert torch.equal(dets.cpu(), torch.cat([boxes[keep.cpu()], scores[keep.cpu(), None]], 1))


@pytest.mark.parametrize('kind', ['rotated', 'quadri'])
def test_labels_change_nothing_but_batched_nms_separates_classes(mmcv_ops, generator, kind):
    boxes, scores = boxes_and_scores(generator, 40)
    if kind == 'quadri':
        boxes = as_quads(boxes)
    labels = torch.arange(40) % 3
    one_class = getattr(mmcv_ops, f'nms_{kind}')
    keep = one_class(boxes, scores, 0.2)[1]
    assert torch.equal(one_class(boxes, scores, 0.2, labels.float())[1], keep)
    config = dict(type=f'nms_{kind}', iou_threshold=0.2)
    assert torch.equal(mmcv_ops.batched_nms(boxes, scores, labels, config, class_agnostic=True)[1], keep)
    each = [torch.nonzero(labels == label)[:, 0] for label in range(3)]
    each = torch.cat([rows[one_class(boxes[rows], scores[rows], 0.2)[1]] for rows in each])
    expected = each[scores[each].argsort(descending=True)]
    assert torch.equal(mmcv_ops.batched_nms(boxes, scores, labels, config)[1], expected)


def test_counter_clockwise_angles(mmcv_ops, generator):
    boxes, scores = boxes_and_scores(generator, 40)
    flipped = boxes * torch.tensor([1, 1, 1, 1, -1.0])
    dets, keep = mmcv_ops.nms_rotated(flipped, scores, 0.2, clockwise=False)
    assert torch.equal(keep, mmcv_ops.nms_rotated(boxes, scores, 0.2)[1])
    assert torch.equal(dets[:, :5], flipped[keep])


def test_an_overlap_equal_to_the_threshold_suppresses(mmcv_ops):
    boxes = torch.tensor([[0.0, 0, 2, 2, 0], [0, 0, 2, 2, 0], [0, 0, 1, 2, 0]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert mmcv_ops.nms_rotated(boxes, scores, 1.0)[1].tolist() == [0, 2]
    assert mmcv_ops.nms_rotated(boxes, scores, 0.5)[1].tolist() == [0]


def test_boxes_with_nan_or_without_area_are_kept(mmcv_ops):
    boxes = torch.tensor([[0.0, 0, 2, 2, 0], [0, 0, math.nan, 2, 0], [0, 0, 0, 2, 0], [math.nan, 0, 2, 2, 0]])
    assert mmcv_ops.nms_rotated(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), 0.5)[1].tolist() == [0, 1, 2, 3]


def test_no_boxes(mmcv_ops, ext):
    none = torch.zeros(0, 5)
    assert mmcv_ops.nms_rotated(none, torch.zeros(0), 0.5)[1] is None
    order = torch.zeros(0, dtype=torch.long)
    assert ext.nms_rotated(none, torch.zeros(0), order, none, order, 0.5, False).shape == (0,)
    quads = torch.zeros(0, 8)
    assert ext.nms_quadri(quads, torch.zeros(0), order, quads, 0.5, False).shape == (0,)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(mmcv_ops, generator, dtype):
    boxes, scores = boxes_and_scores(generator, 40)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    keep = mmcv_ops.nms_rotated(boxes, scores, 0.3)[1]
    overlaps = mmcv_ops.box_iou_rotated(boxes.double(), boxes.double())
    assert keep.tolist() == plain_nms(overlaps, scores, 0.3)
