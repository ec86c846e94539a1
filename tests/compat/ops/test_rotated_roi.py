# Copyright (c) addp_mm contributors. Apache-2.0.
import math

import pytest
import torch

ROIS = [
    [0, 5.3, 4.1, 6.0, 4.0, 0.4],
    [1, 0.5, 0.7, 7.0, 5.0, -1.1],  # partly outside the image
    [0, 5.0, 5.0, 0.4, 0.3, 2.0],  # smaller than a pixel
    [1, 8.1, 7.2, 26.0, 18.0, 1.6],  # larger than the image
    [1, 45.0, 40.0, 5.0, 6.0, 0.3],  # outside
    [0, 6.0, 5.0, 8.0, 4.0, 0.0],
]
ALIGN = [(1.0, 0, True, False), (0.5, 0, False, True), (0.5, 2, True, True), (1.0, 3, False, False)]


def make(generator, dtype=torch.float32, channels=3, height=7, width=9):
    features = torch.randn(2, channels, height, width, generator=generator, dtype=torch.float64).to(dtype)
    return features, torch.tensor(ROIS).to(dtype)


def read_pixel(image, y, x):
    """Bilinear value (C,) of an image (C, H, W); points up to one pixel outside are on its edge."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros_like(image[:, 0, 0])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = image[:, top, left] * (left + 1 - x) + image[:, top, right] * (x - left)
    lower = image[:, bottom, left] * (left + 1 - x) + image[:, bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def loop_pool(features, rois, size, scale, ratio, aligned, clockwise):
    output = torch.zeros(len(rois), features.size(1), *size, dtype=torch.float64)
    for n, (image, x, y, width, height, angle) in enumerate(rois.tolist()):
        x, y, width, height = (v * scale for v in (x, y, width, height))
        if aligned:
            x, y = x - 0.5, y - 0.5
        else:
            width, height = max(width, 1), max(height, 1)
        turn = angle if clockwise else -angle
        rows, columns = ratio or math.ceil(height / size[0]), ratio or math.ceil(width / size[1])
        for i in range(size[0] * rows):
            for j in range(size[1] * columns):
                right = ((j + 0.5) / (size[1] * columns) - 0.5) * width
                down = ((i + 0.5) / (size[0] * rows) - 0.5) * height
                point = complex(right, down) * complex(math.cos(turn), math.sin(turn)) + complex(x, y)
                value = read_pixel(features[int(image)].double(), point.imag, point.real)
                output[n, :, i // rows, j // columns] += value / (rows * columns)
    return output


@pytest.mark.parametrize('settings', ALIGN)
def test_rotated_roi_align_equals_a_plain_loop(mmcv_ops, generator, device, settings):
    features, rois = make(generator)
    pooled = mmcv_ops.roi_align_rotated(features.to(device), rois.to(device), (2, 3), *settings)
    expected = loop_pool(features, rois, (2, 3), *settings)
    torch.testing.assert_close(pooled.cpu().double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('ratio', [0, 2])
def test_without_rotation_it_is_roi_align(mmcv_ops, generator, ratio):
    features, rois = make(generator)
    rois[:, 5] = 0
    straight = torch.cat([rois[:, :1], rois[:, 1:3] - rois[:, 3:5] / 2, rois[:, 1:3] + rois[:, 3:5] / 2], 1)
    torch.testing.assert_close(
        mmcv_ops.roi_align_rotated(features, rois, (2, 3), 0.5, ratio, True),
        mmcv_ops.roi_align(features, straight, (2, 3), 0.5, ratio, 'avg', True),
    )


@pytest.mark.parametrize('settings', ALIGN)
def test_rotated_roi_align_gradient(mmcv_ops, generator, settings, monkeypatch):
    features, rois = make(generator, torch.float64, channels=1, height=4, width=5)
    features.requires_grad_()

    def pool(maps):
        return mmcv_ops.roi_align_rotated(maps, rois, (2, 2), *settings)

    assert torch.autograd.gradcheck(pool, features)
    flow = torch.randn(len(rois), 1, 2, 2, generator=generator, dtype=torch.float64)
    (whole,) = torch.autograd.grad(pool(features), features, flow)
    monkeypatch.setattr('addp_mm.compat.ops.weighted_rows._PENDING_ENTRIES', 1)
    torch.testing.assert_close(torch.autograd.grad(pool(features), features, flow)[0], whole)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_rotated_roi_align_rounds_once(mmcv_ops, generator, dtype):
    features, rois = make(generator, dtype)
    half = mmcv_ops.roi_align_rotated(features.requires_grad_(), rois, 3, 1.0, 2)
    assert half.dtype == dtype
    assert torch.equal(half, mmcv_ops.roi_align_rotated(features.float(), rois.float(), 3, 1.0, 2).to(dtype))
    half.sum().backward()
    assert features.grad.dtype == dtype
    assert features.grad.abs().sum() > 0


def test_no_rois_and_rois_without_size(mmcv_ops):
    features = torch.ones(2, 3, 4, 5, requires_grad=True)
    for rois in (torch.zeros(0, 6), torch.tensor([[0.0, 2, 2, 0, 3, 0.1]])):
        pooled = mmcv_ops.roi_align_rotated(features, rois, (2, 3), 1.0, 0, True)
        pooled.sum().backward()
        assert pooled.shape == (len(rois), 3, 2, 3)
        assert not pooled.any()
        assert not features.grad.any()


@pytest.mark.parametrize('roi', [[0, 2, 2, math.nan, 1, 0], [0, 2, 2, 1, 1, math.inf], [0, 2, 2, -1, 1, 0]])
def test_bad_rois_are_refused(mmcv_ops, roi):
    features, rois = torch.ones(1, 1, 4, 4), torch.tensor([roi], dtype=torch.float32)
    with pytest.raises(RuntimeError, match='NaN or Inf|negative'):
        mmcv_ops.roi_align_rotated(features, rois, 2, 1.0, 2, True)


def loop_turn(pooled, angles, orientations):
    """Shift orientation o to o + angle, linearly between two channels."""
    turned = torch.zeros_like(pooled)
    for n, angle in enumerate(angles.tolist()):
        shift = angle * orientations / (2 * math.pi)
        share = shift - math.floor(shift)
        for channel in range(pooled.size(1)):
            start, o = channel - channel % orientations, channel % orientations
            for by, weight in ((math.floor(shift), 1 - share), (math.floor(shift) - 1, share)):
                turned[n, channel] += weight * pooled[n, start + (o - by) % orientations]
    return turned


@pytest.mark.parametrize('clockwise', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_rotation_invariant_roi_align(mmcv_ops, generator, device, clockwise, ratio):
    features, rois = make(generator, channels=8)
    rois[0, 5] = -9.0  # more than a turn
    align = mmcv_ops.RiRoIAlignRotated((2, 3), 0.5, ratio, 4, clockwise)
    pooled = loop_pool(features, rois, (2, 3), 0.5, ratio, False, clockwise)
    expected = loop_turn(pooled, rois[:, 5], 4)
    torch.testing.assert_close(
        align(features.to(device), rois.to(device)).cpu().double(), expected, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize('ratio', [0, 2])
def test_rotation_invariant_roi_align_gradient(mmcv_ops, generator, ratio):
    features, rois = make(generator, torch.float64, channels=3, height=3, width=4)
    align = mmcv_ops.RiRoIAlignRotated((2, 2), 0.5, ratio, 3)
    assert torch.autograd.gradcheck(lambda maps: align(maps, rois[:4]), features.requires_grad_())
    assert align(features, rois[:0]).shape == (0, 3, 2, 2)


def make_boxes(generator, dtype=torch.float32):
    features = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64).to(dtype)
    boxes = torch.rand(2, 4, 5, 5, generator=generator, dtype=torch.float64).to(dtype)
    return features, boxes * torch.tensor([50, 60, 40, 30, 6], dtype=dtype) - torch.tensor([5, 5, 0, 0, 3], dtype=dtype)


def loop_feature_align(features, boxes, scale, points):
    output = features.double().clone()
    for n, image in enumerate(features.double()):
        for i in range(boxes.size(1)):
            for j in range(boxes.size(2)):
                y, x, width, height, angle = boxes[n, i, j].tolist()
                turn = complex(math.cos(angle), math.sin(angle)) * scale
                corners = [(0, 0), (1, 1), (-1, 1), (-1, -1), (1, -1)][:points]
                for right, down in corners:
                    point = complex(right * width / 2, down * height / 2) * turn + complex(x, y) * scale
                    output[n, :, i, j] += read_pixel(image, point.imag, point.real)
    return output


@pytest.mark.parametrize('points', [1, 5])
def test_rotated_feature_align(mmcv_ops, generator, device, points):
    features, boxes = make_boxes(generator)
    refined = mmcv_ops.rotated_feature_align(features.to(device), boxes.to(device), 1 / 8, points)
    expected = loop_feature_align(features, boxes, 1 / 8, points)
    torch.testing.assert_close(refined.cpu().double(), expected, atol=1e-4, rtol=1e-4)
    flat = mmcv_ops.rotated_feature_align(features.to(device), boxes.view(-1, 5).to(device), 1 / 8, points)
    assert torch.equal(flat, refined)  # R3Det passes boxes so
    features, boxes = make_boxes(generator, torch.float64)
    align = mmcv_ops.rotated_feature_align
    assert torch.autograd.gradcheck(lambda maps: align(maps, boxes, 1 / 8, points), features.requires_grad_())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_rotated_feature_align_rounds_once(mmcv_ops, generator, dtype):
    features, boxes = make_boxes(generator, dtype)
    exact = mmcv_ops.rotated_feature_align(features.float(), boxes.float(), 1 / 8, 5)
    assert torch.equal(mmcv_ops.rotated_feature_align(features, boxes, 1 / 8, 5), exact.to(dtype))
    assert mmcv_ops.rotated_feature_align(features[:0], boxes[:0], 1 / 8, 5).shape == (0, 3, 4, 5)


def test_active_rotated_filter(mmcv_ops, generator, device):
    filters = torch.randn(2, 3, 2, 3, 3, generator=generator, dtype=torch.float64)
    moved = torch.stack([torch.randperm(18, generator=generator) for _ in range(4)], -1)
    indices = (moved + 1).view(2, 3, 3, 4).int()
    expected = torch.zeros(2, 4, 3, 18, dtype=torch.float64)
    for entry in range(18):
        for rotation in range(4):
            expected[:, rotation, :, moved[entry, rotation]] = filters.flatten(2)[:, :, entry]
    found = mmcv_ops.active_rotated_filter(filters.to(device), indices.to(device))
    assert torch.equal(found.cpu(), expected.view(8, 6, 3, 3))
    filters.requires_grad_()
    assert torch.autograd.gradcheck(lambda weight: mmcv_ops.active_rotated_filter(weight, indices), filters)
    half = mmcv_ops.active_rotated_filter(filters.detach().half(), indices)
    assert torch.equal(half, expected.view(8, 6, 3, 3).half())
    assert mmcv_ops.active_rotated_filter(filters[:0].detach(), indices).shape == (0, 6, 3, 3)
