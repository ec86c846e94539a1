# Copyright (c) addp_mm contributors. Apache-2.0.
"""A small two-stage detector of rotated boxes learns with the operators alone."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

SIZE, STRIDE, ANGLES = 64, 8, 4
LENGTHS = torch.tensor([26.0, 12.0])  # of an anchor, and of objects on average


def scene(generator):
    """An image (1, SIZE, SIZE) with two bright rectangles on noise, and their boxes (2, 5)."""
    sides = LENGTHS + 6 * torch.rand(2, 2, generator=generator) - 3
    angles = math.pi * (torch.rand(2, 1, generator=generator) - 0.5)
    centers = torch.tensor([[18.0, 20], [46, 42]]) + 6 * torch.rand(2, 2, generator=generator) - 3
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing='ij')
    image = 0.2 * torch.rand(1, SIZE, SIZE, generator=generator)
    for (u, v), (length, width), angle in zip(centers, sides, angles, strict=True):
        along = (x - u) * angle.cos() + (y - v) * angle.sin()
        across = (y - v) * angle.cos() - (x - u) * angle.sin()
        image[0, (along.abs() < length / 2) & (across.abs() < width / 2)] = 1
    return image, torch.cat([centers, sides, angles], 1)


def rotated_anchors():
    """(SIZE^2 / STRIDE^2 * ANGLES, 5), in the order of the first stage's outputs."""
    steps = torch.arange(STRIDE / 2, SIZE, STRIDE)
    angles = math.pi * torch.arange(ANGLES) / ANGLES - math.pi / 2
    y, x, angle = torch.meshgrid(steps, steps, angles, indexing='ij')
    return torch.stack([x, y, *LENGTHS.view(2, 1, 1, 1).expand(2, *x.shape), angle], -1).view(-1, 5)


def refine(boxes, deltas):
    """Boxes after deltas (x, y, log of width and height, angle) in the frame of each box."""
    x, y = (deltas[:, :2] * boxes[:, 2:4]).unbind(1)
    cos, sin = boxes[:, 4].cos(), boxes[:, 4].sin()
    moved = torch.stack([x * cos - y * sin, x * sin + y * cos], 1)
    return torch.cat([boxes[:, :2] + moved, boxes[:, 2:4] * deltas[:, 2:4].exp(), boxes[:, 4:] + deltas[:, 4:]], 1)


class TwoStages(nn.Module):
    """Rotated anchors, NMS of rotated proposals, RoIAlign of rotated RoIs, refined boxes."""

    def __init__(self, ops):
        super().__init__()
        self.ops, self.anchors = ops, rotated_anchors()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.ReLU()
        )
        self.first = nn.Sequential(nn.Conv2d(16, 64, 7, 2, 3), nn.ReLU(), nn.Conv2d(64, ANGLES * 6, 1))
        self.pool = ops.RoIAlignRotated(7, 0.25, sampling_ratio=2, clockwise=True)
        self.second = nn.Sequential(nn.Flatten(), nn.Linear(16 * 49, 64), nn.ReLU(), nn.Linear(64, 6))

    def propose(self, features):
        """Scores and boxes of all anchors of one image, and those that NMS of the best 64 keeps."""
        output = self.first(features)[0].view(ANGLES, 6, -1).permute(2, 0, 1).reshape(-1, 6)
        scores, boxes = output[:, 0], refine(self.anchors, 0.1 * output[:, 1:])
        best = scores.detach().topk(64).indices
        kept, _ = self.ops.nms_rotated(boxes.detach()[best], scores.detach()[best], 0.7)
        return scores, boxes, kept[:16, :5]

    def refined(self, features, proposals):
        """Scores and boxes of the proposals."""
        rois = torch.cat([torch.zeros(len(proposals), 1), proposals], 1)
        output = self.second(self.pool(features, rois))
        return output[:, 0], refine(proposals, 0.1 * output[:, 1:])

    def part_loss(self, scores, boxes, candidates, objects):
        """Objects go to the candidates that overlap them by half, and each to its best one."""
        overlaps = self.ops.box_iou_rotated(candidates, objects)
        found, owner = overlaps.max(1)
        positive = (found > 0.5) | (overlaps == overlaps.amax(0)).any(1)
        shared = self.ops.diff_iou_rotated_2d(boxes[None, positive], objects[None, owner[positive]])
        return F.binary_cross_entropy_with_logits(scores, positive.float()) + (1 - shared).mean()

    def loss(self, image, objects):
        features = self.stem(image[None])
        scores, boxes, proposals = self.propose(features)
        candidates = torch.cat([proposals, objects])
        second = self.part_loss(*self.refined(features, candidates), candidates, objects)
        return self.part_loss(scores, boxes, self.anchors, objects) + second

    @torch.no_grad()
    def detect(self, image):
        """Boxes with scores (N, 6)."""
        features = self.stem(image[None])
        scores, boxes = self.refined(features, self.propose(features)[2])
        return self.ops.nms_rotated(boxes, scores.sigmoid(), 0.1)[0]


def test_a_detector_of_rotated_boxes_learns(mmcv_ops, generator):
    torch.manual_seed(0)
    scenes = [scene(generator) for _ in range(52)]
    training, unseen = scenes[:48], scenes[48:]
    model = TwoStages(mmcv_ops)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for image, objects in itertools.islice(itertools.cycle(training), 128):
        loss = model.loss(image, objects)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-16:]) / 16 < 0.7 * sum(losses[:4]) / 4
    shared = []
    for image, objects in unseen:
        found = model.detect(image)
        found = found[found[:, 5] > 0.5]
        assert len(found) == 2
        shared.append(mmcv_ops.box_iou_rotated(objects, found[:, :5]).amax(1))
    assert torch.cat(shared).mean() > 0.65
    assert torch.cat(shared).min() > 0.5
