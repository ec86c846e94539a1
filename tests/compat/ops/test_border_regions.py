# Copyright (c) addp_mm contributors. Apache-2.0.
"""Pooling along borders, between curves and over exact areas."""

import math

import numpy as np
import pytest
import torch


def read(image, y, x):
    """Value of a map (H, W) at a point, 0 if it is more than a pixel outside."""
    height, width = image.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    rows, columns = np.arange(height), np.arange(width)
    hats = np.maximum(0, 1 - abs(rows - y)), np.maximum(0, 1 - abs(columns - x))
    return float(hats[0] @ image @ hats[1])


def draw(generator, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


BOXES = [
    [[0.3, 0.2, 4.6, 3.9], [1.2, 2.1, 1.2, 2.1], [-3.0, -2.0, 2.0, 9.0]],  # usual, a point, partly outside
    [[4.2, 3.1, 1.3, 0.4], [20.0, 20.0, 30.0, 30.0], [0.0, 0.0, 5.0, 4.0]],  # turned, outside, all
]


def loop_border_align(images, boxes, steps):
    groups = images.numpy().reshape(len(images), 4, -1, *images.shape[2:])
    output = np.zeros((len(images), groups.shape[2], boxes.shape[1], 4))
    for n, c, m, border in np.ndindex(output.shape):
        x1, y1, x2, y2 = boxes[n, m].tolist()
        ends = [((x1, y1), (x2, y1)), ((x1, y1), (x1, y2)), ((x2, y2), (x1, y2)), ((x2, y2), (x2, y1))][border]
        points = [[a + (b - a) * i / steps for a, b in zip(*ends, strict=True)] for i in range(steps + 1)]
        output[n, c, m, border] = max(read(groups[n, border, c], y, x) for x, y in points)
    return torch.from_numpy(output)


@pytest.mark.parametrize('steps', [1, 2, 5])
def test_border_align(mmcv_ops, generator, device, steps):
    images, boxes = draw(generator, 2, 8, 5, 6), torch.tensor(BOXES, dtype=torch.float64)
    expected = loop_border_align(images, boxes, steps)
    pooled = mmcv_ops.border_align(images.to(device), boxes.to(device), steps)
    torch.testing.assert_close(pooled.cpu(), expected)
    half = mmcv_ops.border_align(images.half(), boxes.half(), steps)
    torch.testing.assert_close(half.double(), expected, atol=0.02, rtol=0.02)
    assert torch.autograd.gradcheck(
        lambda x: mmcv_ops.border_align(x, boxes[:1], steps), images[:1, ::2].requires_grad_()
    )


def test_border_align_in_parts(mmcv_ops, generator, monkeypatch):
    images, boxes = draw(generator, 2, 8, 5, 6).requires_grad_(), torch.tensor(BOXES, dtype=torch.float64)
    whole = mmcv_ops.border_align(images, boxes, 3)
    slope = torch.autograd.grad(whole.square().sum(), images)[0]
    monkeypatch.setattr('addp_mm.compat.ops.roi_grid._CHUNK_ELEMENTS', 1)
    parts = mmcv_ops.border_align(images, boxes, 3)
    assert torch.equal(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts.square().sum(), images)[0], slope)


def test_the_first_of_equal_points_gets_the_gradient(ext):
    images, boxes = torch.ones(1, 4, 3, 3), torch.tensor([[[0.0, 0.0, 2.0, 2.0]]])
    output, best = torch.zeros(1, 1, 1, 4), torch.full((1, 1, 1, 4), 7, dtype=torch.int)
    ext.border_align_forward(images, boxes, output, best, pool_size=2)
    assert output.tolist() == [[[[1, 1, 1, 1]]]]
    assert not best.any()
    grad = torch.zeros_like(images)
    ext.border_align_backward(torch.ones_like(output), boxes, best, grad, pool_size=2)
    assert grad[0, :2, 0, 0].tolist() == grad[0, 2:, 2, 2].tolist() == [1, 1]
    assert grad.sum() == 4


def test_border_align_of_nothing(mmcv_ops):
    images = torch.ones(1, 4, 3, 3, requires_grad=True)
    output = mmcv_ops.border_align(images, torch.zeros(1, 0, 4), 2)
    output.sum().backward()
    assert output.shape == (1, 1, 0, 4)
    assert not images.grad.any()


CURVES = [
    [0, 0.5, 1.0, 3.0, -1.0, 6.0, 2.0, 9.0, 1.5, 9.5, 7.0, 6.0, 8.0, 3.0, 6.0, 0.0, 7.5],
    [1, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0],  # a point
    [1, -8.0, -8.0, 0.0, -9.0, 9.0, 3.0, 30.0, 0.0, 30.0, 20.0, 10.0, 9.0, 0.0, 30.0, -8.0, 9.0],
]


def de_casteljau(points, u):
    points = np.array(points, dtype=float)
    while len(points) > 1:
        points = points[:-1] * (1 - u) + points[1:] * u
    return points[0]


def loop_bezier_align(images, beziers, size, scale, ratio, aligned):
    output = np.zeros((len(beziers), images.shape[1], *size))
    for k, (image, *flat) in enumerate(beziers.tolist()):
        points = np.array(flat).reshape(8, 2) * scale
        upper, lower = points[:4], points[:3:-1]
        w, h = np.maximum(abs(upper[0] - upper[3]), abs(lower[0] - lower[3]))
        if not aligned:
            w, h = max(w, 1.0), max(h, 1.0)
        bins = h / size[0], w / size[1]
        grid = [ratio or math.ceil(side) for side in bins]
        for c, i, j in np.ndindex(output.shape[1:]):
            v, u = i / size[0], j / size[1]
            x, y = de_casteljau(upper, u) * (1 - v) + de_casteljau(lower, u) * v - (0.5 if aligned else 0)
            values = [
                read(
                    images[int(image), c].numpy(),
                    y + ((a + 0.5) / grid[0] - 0.5) * bins[0],
                    x + ((b + 0.5) / grid[1] - 0.5) * bins[1],
                )
                for a in range(grid[0])
                for b in range(grid[1])
            ]
            output[k, c, i, j] = sum(values) / max(len(values), 1)
    return torch.from_numpy(output)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio,scale', [(0, 0.5), (2, 1.0)])
def test_bezier_align(mmcv_ops, generator, device, aligned, ratio, scale):
    images, beziers = draw(generator, 2, 2, 6, 7), torch.tensor(CURVES, dtype=torch.float64)
    settings = ((2, 3), scale, ratio, aligned)
    expected = loop_bezier_align(images, beziers, *settings)
    pooled = mmcv_ops.bezier_align(images.to(device), beziers.to(device), *settings)
    torch.testing.assert_close(pooled.cpu(), expected)
    half = mmcv_ops.bezier_align(images.half(), beziers.half(), *settings)
    torch.testing.assert_close(half.double(), expected, atol=0.02, rtol=0.02)
    assert torch.autograd.gradcheck(
        lambda x: mmcv_ops.bezier_align(x, beziers, *settings), images[:, :1].requires_grad_()
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_a_half_gradient_is_rounded_once(mmcv_ops, ext, generator, monkeypatch, dtype):
    monkeypatch.setattr('addp_mm.compat.ops.roi_grid._CHUNK_ELEMENTS', 1)  # each region on its own
    beziers, rois = torch.tensor(CURVES).to(dtype), torch.tensor(ROIS).to(dtype)
    flow = draw(generator, 3, 2, 2, 3, dtype=dtype), draw(generator, 5, 2, 2, 3, dtype=dtype)
    found = []
    for kind in (dtype, torch.float32):
        by_curve, by_roi = (torch.ones(2, 2, 6, 7, dtype=kind) for _ in range(2))  # gradients are added
        ext.bezier_align_backward(flow[0].to(kind), beziers.to(kind), by_curve, 2, 3, 0.5, 0, True)
        ext.prroi_pool_backward(flow[1].to(kind), rois.to(kind), by_roi, 2, 3, 0.5)
        found.append((by_curve.to(dtype), by_roi.to(dtype)))
    assert all(map(torch.equal, *found))


def test_bezier_align_of_a_plane_is_its_value_at_the_centres(mmcv_ops):
    images = torch.arange(144.0, dtype=torch.float64).view(1, 1, 12, 12)  # 12 * y + x
    x, (upper, lower) = [2.0, 4.0, 6.0, 8.0], (3.0, 9.0)
    flat = [v for a in x for v in (a, upper)] + [v for a in x[::-1] for v in (a, lower)]
    pooled = mmcv_ops.bezier_align(images, torch.tensor([[0, *flat]], dtype=torch.float64), (3, 4), 1.0, 2, False)
    rows, columns = torch.tensor([3.0, 5, 7]), torch.tensor([2.0, 3.5, 5, 6.5])
    torch.testing.assert_close(pooled[0, 0], (12 * rows[:, None] + columns).double())


def test_bezier_align_of_nothing(mmcv_ops):
    images = torch.ones(1, 4, 3, 3, requires_grad=True)
    output = mmcv_ops.bezier_align(images, torch.zeros(0, 17), (2, 2), 1.0, 0, True)
    output.sum().backward()
    assert output.shape == (0, 4, 2, 2)
    assert not images.grad.any()


ROIS = [
    [0, 0.3, 0.4, 4.6, 3.8],
    [1, 1.0, 1.0, 3.0, 3.0],  # whole pixels
    [1, 2.1, 2.2, 2.4, 2.3],  # inside a pixel
    [0, -9.0, -3.5, 2.5, 30.0],  # partly outside
    [0, 20.0, 20.0, 22.0, 25.0],  # outside
]


def exact_mean(image, low, high):
    """Mean of the interpolated map over an area: two Gauss points a pixel are exact."""
    offset = 0.5 / math.sqrt(3)
    axes = []
    for start, end in zip(low, high, strict=True):
        cuts = [start, *range(math.floor(start) + 1, math.ceil(end)), end]
        cells = list(zip(cuts, cuts[1:], strict=False))
        axes.append([((a + b) / 2 + side * (b - a), (b - a) / 2) for a, b in cells for side in (-offset, offset)])
    inside = np.pad(image, 1)  # a zero pixel around the map; further points are 0 too
    total = sum(read(inside, y + 1, x + 1) * v * w for y, v in axes[0] for x, w in axes[1])
    return total / ((high[0] - low[0]) * (high[1] - low[1]))


def test_prroi_pool(mmcv_ops, generator, device):
    images, rois = draw(generator, 2, 2, 5, 6, dtype=torch.float32), torch.tensor(ROIS)
    pooled = mmcv_ops.prroi_pool(images.to(device), rois.to(device), (2, 3), 0.5).cpu()
    for k, (image, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (side * 0.5 for side in box)
        for c, i, j in np.ndindex(*pooled.shape[1:]):
            low = y1 + (y2 - y1) * i / 2, x1 + (x2 - x1) * j / 3
            high = y1 + (y2 - y1) * (i + 1) / 2, x1 + (x2 - x1) * (j + 1) / 3
            expected = exact_mean(images[int(image), c].double().numpy(), low, high)
            assert pooled[k, c, i, j].item() == pytest.approx(expected, abs=2e-5)


def test_prroi_pool_of_rois_of_many_sizes(ext, generator):
    images = draw(generator, 1, 1, 30, 40)
    start, sizes = torch.rand(20, 2, generator=generator) * 20 - 5, 2 ** (torch.arange(20.0) / 3)
    rois = torch.cat([torch.zeros(20, 1), start, start + torch.stack([sizes, sizes.flip(0)], 1)], 1).double()
    together, alone = (torch.zeros(20, 1, 1, 2, dtype=torch.float64) for _ in range(2))
    ext.prroi_pool_forward(images, rois, together, 1, 2, 1.0)
    for k in range(20):
        ext.prroi_pool_forward(images, rois[k : k + 1], alone[k : k + 1], 1, 2, 1.0)
    torch.testing.assert_close(together, alone, atol=1e-12, rtol=0)
    x1, y1, x2, y2 = rois[0, 1:].tolist()
    left = exact_mean(images[0, 0].numpy(), (y1, x1), (y2, (x1 + x2) / 2))
    assert together[0, 0, 0, 0].item() == pytest.approx(left)


def test_prroi_pool_reads_no_pixel_beside_a_bin(ext):
    images = torch.ones(1, 1, 9, 9)
    images[0, 0, 6:] = images[0, 0, :, 6:] = torch.nan
    rois, output = torch.tensor([[0.0, 1, 1, 4.5, 4.5], [0, 0, 0, 8, 8]]), torch.zeros(2, 1, 1, 1)
    ext.prroi_pool_forward(images, rois, output, 1, 1, 1.0)
    assert output[0].item() == pytest.approx(1)
    assert output[1].isnan()


class PreciseInFloat64(torch.autograd.Function):
    """mmcv's own function takes float32 only."""

    @staticmethod
    def forward(ctx, images, rois, ext):
        output = images.new_full((len(rois), images.size(1), 2, 3), 7.0)
        ext.prroi_pool_forward(images, rois, output, 2, 3, 0.5)
        ctx.save_for_backward(images, rois, output)
        ctx.ext = ext
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        images, rois, output = ctx.saved_tensors
        by_image, by_roi = torch.zeros_like(images), torch.zeros_like(rois)
        ctx.ext.prroi_pool_backward(grad.contiguous(), rois, by_image, 2, 3, 0.5)
        ctx.ext.prroi_pool_coor_backward(output, grad.contiguous(), images, rois, by_roi, 2, 3, 0.5)
        return by_image, by_roi, None


def test_prroi_pool_gradients_for_features_and_boxes(ext, generator, monkeypatch):
    monkeypatch.setattr('addp_mm.compat.ops.roi_grid._CHUNK_ELEMENTS', 100)  # in parts
    images = draw(generator, 2, 1, 5, 6).requires_grad_()
    rois = torch.tensor(ROIS[:1] + ROIS[2:], dtype=torch.float64)
    shift = torch.zeros(4, 5, dtype=torch.float64)
    shift[:, 1:] = draw(generator, 4, 4) * 0.01

    def pool(features, boxes):  # the index in the batch has no gradient
        return PreciseInFloat64.apply(features, torch.cat([rois[:, :1], boxes], dim=1), ext)

    boxes = (rois + shift)[:, 1:].clone().requires_grad_()
    assert torch.autograd.gradcheck(pool, (images, boxes), eps=1e-7, atol=1e-5)


def test_prroi_pool_of_boxes_without_area(mmcv_ops):
    images = torch.ones(1, 1, 4, 4, requires_grad=True)
    rois = torch.tensor([[0.0, 1, 1, 1, 3], [0.0, 3, 3, 1, 1]], requires_grad=True)
    output = mmcv_ops.prroi_pool(images, rois, (2, 2), 1.0)
    output.sum().backward()
    assert not output.any()
    assert not images.grad.any()
    assert not rois.grad.any()
    empty = mmcv_ops.prroi_pool(images, torch.zeros(0, 5), (2, 2), 1.0)
    assert empty.shape == (0, 1, 2, 2)
