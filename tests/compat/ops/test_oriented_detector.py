# Copyright (c) addp_mm contributors. Apache-2.0.
"""The second stage of an oriented detector, as in Oriented R-CNN, learns with the operators."""

import torch
import torch.nn.functional as F
from torch import nn

OBJECTS = torch.tensor([[20.0, 24, 26, 12, 0.5], [44.0, 38, 22, 10, -0.8]])


def image_of(mmcv_ops, size=64):
    """An image (1, 1, size, size) with bright rotated rectangles."""
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing='ij')
    pixels = torch.stack([x, y, torch.full_like(x, 1e-3), torch.full_like(x, 1e-3), torch.zeros_like(x)], -1)
    return mmcv_ops.box_iou_rotated(pixels.view(-1, 5), OBJECTS, 'iof').amax(1).view(1, 1, size, size)


def proposals_of(generator, count=16):
    """Moved copies of the objects, and boxes anywhere: (3 * count, 5)."""
    noise = torch.randn(2 * count, 5, generator=generator) * torch.tensor([2, 2, 2, 1, 0.15])
    anywhere = torch.rand(count, 5, generator=generator) * torch.tensor([64, 64, 12, 12, 3]) + torch.tensor(
        [0, 0, 10.0, 8, -1.5]
    )
    return torch.cat([OBJECTS.repeat(count, 1) + noise, anywhere])


def refine(proposals, deltas):
    """Boxes after deltas (x, y, log of width and height, angle) in the frame of each proposal."""
    center, sides, angle = proposals[:, :2], proposals[:, 2:4], proposals[:, 4:]
    x, y = (deltas[:, :2] * sides).unbind(1)
    cos, sin = angle[:, 0].cos(), angle[:, 0].sin()
    moved = torch.stack([x * cos - y * sin, x * sin + y * cos], 1)
    return torch.cat([center + moved, sides * deltas[:, 2:4].exp(), angle + deltas[:, 4:]], 1)


def test_the_second_stage_learns(mmcv_ops, generator):
    torch.manual_seed(0)
    image, proposals = image_of(mmcv_ops), proposals_of(generator)
    overlaps, objects = mmcv_ops.box_iou_rotated(proposals, OBJECTS).max(1)
    positive = overlaps > 0.5
    rois = torch.cat([torch.zeros(len(proposals), 1), proposals[:, :2], proposals[:, 2:4] * 1.5, proposals[:, 4:]], 1)
    backbone = nn.Sequential(nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU())
    pool = mmcv_ops.RoIAlignRotated(7, 0.5, sampling_ratio=2, clockwise=True)
    head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 49, 32), nn.ReLU(), nn.Linear(32, 6))
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=5e-3)
    for _ in range(50):
        output = head(pool(backbone(image), rois))
        boxes = refine(proposals, 0.1 * output[:, 1:])
        found = mmcv_ops.diff_iou_rotated_2d(boxes[None, positive], OBJECTS[None, objects[positive]])
        loss = F.binary_cross_entropy_with_logits(output[:, 0], positive.float()) + (1 - found).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert found.mean() > overlaps[positive].mean() + 0.1
    scores = output[:, 0].detach().sigmoid()
    dets, keep = mmcv_ops.nms_rotated(boxes.detach(), scores, 0.1)
    best = dets[dets[:, 5] > 0.5]
    assert len(best) == 2
    assert mmcv_ops.box_iou_rotated(OBJECTS, best[:, :5]).amax(1).min() > 0.75
    assert torch.equal(dets[:, 5], scores[keep])
