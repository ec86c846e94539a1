# Copyright (c) addp_mm contributors. Apache-2.0.
import math

import pytest
import torch
from helpers.plain_polygons import corners_of, sliced_area

BOXES = [
    [0.0, 0, 0, 4, 2, 1, 0],
    [0.5, 0.5, 5, 4, 2, 1, math.pi / 2],
    [1.0, -0.5, 0, 2, 3, 1, 0.7],
    [2.0, 0, 0, 4, 2, 1, 0],  # shares half of the first
    [4.0, 0, 0, 4, 2, 1, 0],  # touches the first
    [0.0, 0, 0, 4, 2, 9, -math.pi],  # the first one, turned round
    [0.0, 0, 0, 0, 2, 1, 0.3],  # no area
]


def flat(box):
    return [box[0], box[1], box[3], box[4], box[6]]


def test_shared_areas(mmcv_ops, device):
    boxes = torch.tensor(BOXES, dtype=torch.float64)
    found = mmcv_ops.boxes_overlap_bev(boxes.to(device), boxes[:4].to(device)).cpu()
    expected = [[sliced_area(corners_of(flat(one)), corners_of(flat(other))) for other in BOXES[:4]] for one in BOXES]
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), atol=1e-2, rtol=0
    )  # mmcv has a margin
    exact = found[[0, 3, 4, 5], 0]
    torch.testing.assert_close(exact, torch.tensor([8.0, 4, 0, 8], dtype=torch.float64))
    assert mmcv_ops.boxes_overlap_bev(boxes[:0], boxes).shape == (0, 7)


@pytest.mark.parametrize('apart,area', [(0.004, 0.008), (0.02, 0.0)])
def test_the_margin_joins_boxes_that_are_apart(ext, apart, area):
    boxes = torch.tensor([[0.0, 0, 0, 2, 2, 1, 0], [2 + apart, 0, 0, 2, 2, 1, 0]], dtype=torch.float64)
    found = torch.zeros(2, 2, dtype=torch.float64)
    ext.iou3d_boxes_overlap_bev_forward(boxes, boxes, found)
    torch.testing.assert_close(found, torch.tensor([[4, area], [area, 4]], dtype=torch.float64))


def greedy(boxes, order, threshold, turned):
    kept = []
    for index in order:
        box = flat(boxes[index]) if turned else [*flat(boxes[index])[:4], 0]
        for other in kept:
            better = flat(boxes[other]) if turned else [*flat(boxes[other])[:4], 0]
            shared = sliced_area(corners_of(box), corners_of(better), slices=2000)
            if shared / max(box[2] * box[3] + better[2] * better[3] - shared, 1e-8) > threshold:
                break
        else:
            kept.append(index)
    return kept


@pytest.mark.parametrize('name', ['nms3d', 'nms3d_normal'])
def test_suppression(mmcv_ops, generator, device, monkeypatch, name):
    monkeypatch.setattr('addp_mm.compat.ops.iou3d._BLOCK', 8)
    boxes = torch.rand(20, 7, generator=generator) * torch.tensor([6.0, 6, 1, 4, 4, 1, 3]) + 0.1
    scores = torch.rand(20, generator=generator)
    found = getattr(mmcv_ops, name)(boxes.to(device), scores.to(device), 0.2)
    order = scores.argsort(descending=True).tolist()
    assert found.tolist() == greedy(boxes.tolist(), order, 0.2, name == 'nms3d')
    assert len(getattr(mmcv_ops, name)(boxes[:0], scores[:0], 0.2)) == 0
