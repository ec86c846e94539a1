# Copyright (c) addp_mm contributors. Apache-2.0.
"""Calls of the operators for overlap and suppression of boxes and point sets."""

import torch

from helpers.operator_cases.inputs import OperatorCase
from helpers.plain_polygons import corners_of


def rectangles(boxes):
    """Corners of rotated boxes, for which mmcv's test of points in a quadrilateral is exact."""
    return torch.tensor([[v for corner in corners_of(box) for v in corner] for box in boxes.tolist()]).to(boxes)


def nms(make):
    boxes, scores = make.boxes(400), make.scores(400)
    for offset in (0, 1):
        yield OperatorCase('nms', (boxes, scores, 0.4, offset))
    if make.device == 'cpu':
        yield OperatorCase('nms_match', (torch.cat([boxes, scores[:, None]], 1), 0.4))


def soft_nms(make):
    boxes, scores = make.boxes(400), make.scores(400)
    for method in range(3):
        for offset in (0, 1):
            args = (boxes, scores, make.zeros(400, 5), 0.4, 0.5, 0.05, method, offset)
            yield OperatorCase('softnms', args, (2,))


def bbox_overlaps(make):
    one, other = make.boxes(30), make.boxes(20)
    for mode in (0, 1):
        for offset in (0, 1):
            yield OperatorCase('bbox_overlaps', (one, other, make.zeros(30, 20), mode, False, offset), (2,))
            yield OperatorCase('bbox_overlaps', (one[:20], other, make.zeros(20), mode, True, offset), (2,))


def nms_polygon(make):
    boxes, scores = make.rotated_boxes(400), make.scores(400)
    quads, order = rectangles(boxes), scores.sort(0, descending=True)[1]
    none, labels = make.zeros(0, dtype=torch.long), make.whole(3, 400)
    with_label = torch.cat([boxes, labels[:, None]], 1)
    for threshold in (0.1, 0.5):
        yield OperatorCase('nms_rotated', (boxes, scores, order, boxes[order], none, threshold, False))
        yield OperatorCase('nms_rotated', (with_label, scores, order, with_label[order], labels, threshold, True))
        yield OperatorCase('nms_quadri', (quads, scores, order, quads[order], threshold, False))


def box_iou_polygon(make):
    boxes, others = make.rotated_boxes(30), make.rotated_boxes(30)
    quads = rectangles(boxes), rectangles(others)
    for mode in (0, 1):
        for name, one, other in (('box_iou_rotated', boxes, others), ('box_iou_quadri', *quads)):
            yield OperatorCase(name, (one, other[:20], make.zeros(600), mode, False), (2,))
            yield OperatorCase(name, (one, other, make.zeros(30), mode, True), (2,))


def point_sets(make):
    quads, points = rectangles(make.rotated_boxes(20)), make.rand(20, 18) * 60
    yield OperatorCase('convex_iou', (points, quads, make.zeros(20, 20)), (2,))
    yield OperatorCase('convex_giou', (points, quads, make.zeros(20, 19)), (2,))
    yield OperatorCase('min_area_polygons', (points, make.zeros(20, 8)), (1,))
    yield OperatorCase('points_in_polygons_forward', (make.randn(300, 2) * 30, quads, make.zeros(300, 20)), (2,))


def sort_vertices(make):
    ring, mask = make.randn(2, 5, 24, 2), make.zeros(2, 5, 24, dtype=torch.bool)
    mask[..., :3] = mask[..., 8:12] = True
    yield OperatorCase('diff_iou_rotated_sort_vertices_forward', (ring, mask, mask.sum(2).int()))


def boxes_in_space(make):
    """Upright 3-D boxes, best first."""
    boxes = make.rand(30, 7) * 4 + 0.1
    shared = make.zeros(30, 30)
    yield OperatorCase('iou3d_boxes_overlap_bev_forward', (boxes, boxes.flip(0), shared), (2,))
    for name in ('iou3d_nms3d_forward', 'iou3d_nms3d_normal_forward'):
        number = torch.zeros((), dtype=torch.long)  # on the CPU, as the indices, on all devices
        yield OperatorCase(name, (boxes, torch.zeros(30, dtype=torch.long), number, 0.3), (1, 2))


GROUPS = (nms, soft_nms, bbox_overlaps, nms_polygon, box_iou_polygon, point_sets, sort_vertices, boxes_in_space)
