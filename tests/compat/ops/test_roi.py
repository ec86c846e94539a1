# Copyright (c) addp_mm contributors. Apache-2.0.
import math

import pytest
import torch

ROIS = [
    [0, 1.3, 2.1, 9.7, 8.2],
    [1, -4.0, -3.0, 6.0, 5.0],  # partly outside the image
    [0, 5.0, 5.0, 5.4, 5.3],  # smaller than a pixel
    [1, 3.0, 2.0, 26.0, 22.0],  # larger than the image
    [1, 40.0, 40.0, 50.0, 50.0],  # outside
]


def make(generator, dtype=torch.float32, channels=3, height=7, width=9):
    features = torch.randn(2, channels, height, width, generator=generator).to(dtype)
    return features, torch.tensor(ROIS).to(dtype)


def corners(y, x, height, width):
    """(row, column, weight) of the pixels around a point."""
    if y < -1 or y > height or x < -1 or x > width:
        return []
    y, x = max(y, 0.0), max(x, 0.0)
    y_low, x_low = int(y), int(x)
    if y_low >= height - 1:
        y_low = y_high = height - 1
        y = float(y_low)
    else:
        y_high = y_low + 1
    if x_low >= width - 1:
        x_low = x_high = width - 1
        x = float(x_low)
    else:
        x_high = x_low + 1
    dy, dx = y - y_low, x - x_low
    return [
        (y_low, x_low, (1 - dy) * (1 - dx)),
        (y_low, x_high, (1 - dy) * dx),
        (y_high, x_low, dy * (1 - dx)),
        (y_high, x_high, dy * dx),
    ]


def bin_points(roi, size, scale, ratio, aligned, shift=None, gamma=0.0):
    """For each bin the list of its sampling points (y, x)."""
    half = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (v * scale - half for v in roi[1:])
    w, h = x2 - x1, y2 - y1
    if not aligned:
        w, h = max(w, 1.0), max(h, 1.0)
    bh, bw = h / size[0], w / size[1]
    gh, gw = ratio or math.ceil(bh), ratio or math.ceil(bw)
    for ph in range(size[0]):
        for pw in range(size[1]):
            dy = gamma * h * shift[1][ph][pw] if shift else 0.0
            dx = gamma * w * shift[0][ph][pw] if shift else 0.0
            yield (
                ph,
                pw,
                [
                    (y1 + dy + ph * bh + (i + 0.5) * bh / gh, x1 + dx + pw * bw + (j + 0.5) * bw / gw)
                    for i in range(gh)
                    for j in range(gw)
                ],
            )


def loop_roi_align(features, rois, size, scale, ratio, mode, aligned, shifts=None, gamma=0.0):
    output = torch.zeros(len(rois), features.size(1), *size, dtype=torch.float64)
    height, width = features.shape[2:]
    pixels = features.double()
    for n, roi in enumerate(rois.tolist()):
        image = pixels[int(roi[0])]
        shift = shifts[n].tolist() if shifts is not None else None
        for ph, pw, points in bin_points(roi, size, scale, ratio, aligned, shift, gamma):
            values = [
                sum(
                    (image[:, r, c] * w for r, c, w in corners(y, x, height, width)),
                    torch.zeros(features.size(1), dtype=torch.float64),
                )
                for y, x in points
            ]
            stack = torch.stack(values)
            output[n, :, ph, pw] = stack.mean(0) if mode == 'avg' else stack.max(0)[0]
    return output


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('scale', [1.0, 0.5])
def test_roi_align_equals_a_plain_loop(mmcv_ops, generator, device, mode, aligned, ratio, scale):
    features, rois = make(generator)
    pooled = mmcv_ops.roi_align(features.to(device), rois.to(device), (2, 3), scale, ratio, mode, aligned)
    expected = loop_roi_align(features, rois, (2, 3), scale, ratio, mode, aligned)
    torch.testing.assert_close(pooled.cpu().double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align_gradient(mmcv_ops, generator, mode, aligned, ratio):
    features, rois = make(generator, torch.float64, channels=2, height=5, width=6)
    rois[:, 1:] += 0.06  # mmcv reads a maximum at exactly row -1 as no maximum
    assert torch.autograd.gradcheck(
        lambda f: mmcv_ops.roi_align(f, rois, (2, 2), 0.5, ratio, mode, aligned), features.requires_grad_()
    )


def test_max_pooling_returns_the_positions(ext, generator):
    features, rois = make(generator, torch.float64)
    output, y, x = (torch.zeros(len(ROIS), 3, 2, 2, dtype=torch.float64) for _ in range(3))
    ext.roi_align_forward(
        features,
        rois,
        output,
        y,
        x,
        aligned_height=2,
        aligned_width=2,
        spatial_scale=0.5,
        sampling_ratio=2,
        pool_mode=0,
        aligned=True,
    )
    for n, c, ph, pw in torch.cartesian_prod(*(torch.arange(s) for s in output.shape)).tolist():
        here = corners(y[n, c, ph, pw].item(), x[n, c, ph, pw].item(), 7, 9)
        value = sum(features[int(rois[n, 0]), c, row, column].item() * w for row, column, w in here)
        assert value == pytest.approx(output[n, c, ph, pw].item())


def test_max_pooling_without_points(ext):
    features, rois = torch.ones(1, 1, 4, 4), torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0]])
    output, y, x = (torch.zeros(1, 1, 1, 1) for _ in range(3))
    ext.roi_align_forward(features, rois, output, y, x, 1, 1, 1.0, 0, 0, True)
    assert output.item() == -10000
    assert y.item() == x.item() == -1
    grad = torch.zeros_like(features)
    ext.roi_align_backward(torch.ones_like(output), rois, y, x, grad, 1, 1, 1.0, 0, 0, True)
    assert not grad.any()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_roi_align_rounds_once(mmcv_ops, generator, dtype, mode):
    features, rois = make(generator, dtype)
    half = mmcv_ops.roi_align(features.requires_grad_(), rois, 3, 1.0, 2, mode, True)
    exact = mmcv_ops.roi_align(features.float(), rois.float(), 3, 1.0, 2, mode, True)
    assert half.dtype == dtype
    assert torch.equal(half, exact.to(dtype))
    half.sum().backward()
    assert features.grad.dtype == dtype
    assert features.grad.abs().sum() > 0


def test_mixed_dtypes_and_autocast(mmcv_ops, generator):
    features, rois = make(generator)
    exact = mmcv_ops.roi_align(features, rois, 3, 1.0, 2, 'avg', True)
    assert torch.equal(mmcv_ops.roi_align(features, rois.double(), 3, 1.0, 2, 'avg', True), exact)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(mmcv_ops.roi_align(features, rois, 3, 1.0, 2, 'avg', True), exact)


def test_negative_size_is_refused(mmcv_ops):
    features, rois = torch.ones(1, 1, 4, 4), torch.tensor([[0.0, 3.0, 0.0, 1.0, 2.0]])
    with pytest.raises(RuntimeError, match='negative'):
        mmcv_ops.roi_align(features, rois, 2, 1.0, 0, 'avg', True)
    assert mmcv_ops.roi_align(features, rois, 2, 1.0, 0, 'avg', False).shape == (1, 1, 2, 2)


@pytest.mark.parametrize('value', [math.nan, math.inf])
@pytest.mark.parametrize('mode, aligned, ratio', [('avg', True, 0), ('avg', False, 2), ('max', False, 0)])
def test_rois_that_are_not_finite_are_refused(mmcv_ops, value, mode, aligned, ratio):
    rois = torch.tensor([[0.0, 1.0, 1.0, value, 3.0]])
    with pytest.raises(RuntimeError, match='NaN or Inf'):
        mmcv_ops.roi_align(torch.ones(1, 1, 4, 4), rois, 2, 1.0, ratio, mode, aligned)


def test_a_roi_with_nan_is_pooled_to_zero(mmcv_ops, ext):
    features = torch.ones(1, 1, 4, 4, requires_grad=True)
    rois = torch.tensor([[0.0, 1.0, 1.0, math.nan, 3.0], [0.0, 1.0, 1.0, 2.0, 3.0]])
    pooled = mmcv_ops.roi_pool(features, rois, 2, 1.0)
    assert pooled.flatten(1).tolist() == [[0.0] * 4, [1.0] * 4]
    pooled[:1].sum().backward()
    assert not features.grad.any()
    offset = torch.zeros(2, 2, 2, 2)
    deformed = mmcv_ops.deform_roi_pool(features.detach(), rois, offset, (2, 2), 1.0, 0, 0.1)
    assert not deformed[0].any()
    assert deformed[1].all()


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_no_rois(mmcv_ops, mode):
    features = torch.ones(2, 3, 4, 5, requires_grad=True)
    pooled = mmcv_ops.roi_align(features, torch.zeros(0, 5), (2, 3), 1.0, 0, mode, True)
    pooled.sum().backward()
    assert pooled.shape == (0, 3, 2, 3)
    assert not features.grad.any()
    features.grad = None
    pooled = mmcv_ops.roi_pool(features, torch.zeros(0, 5), (2, 3), 1.0)
    pooled.sum().backward()
    assert pooled.shape == (0, 3, 2, 3)
    assert not features.grad.any()


def loop_roi_pool(features, rois, size, scale):
    height, width = features.shape[2:]
    output = torch.zeros(len(rois), features.size(1), *size)
    argmax = torch.full(output.shape, -1)
    for n, roi in enumerate(rois.tolist()):
        x1, y1, x2, y2 = roi[1] * scale, roi[2] * scale, (roi[3] + 1) * scale, (roi[4] + 1) * scale
        bh, bw = (y2 - y1) / size[0], (x2 - x1) / size[1]
        for c in range(features.size(1)):
            for ph in range(size[0]):
                for pw in range(size[1]):
                    rows = range(max(math.floor(ph * bh + y1), 0), min(math.ceil((ph + 1) * bh + y1), height))
                    columns = range(max(math.floor(pw * bw + x1), 0), min(math.ceil((pw + 1) * bw + x1), width))
                    cells = [(features[int(roi[0]), c, y, x].item(), y * width + x) for y in rows for x in columns]
                    if cells:
                        best = max(cells, key=lambda cell: (cell[0], -cell[1]))
                        output[n, c, ph, pw], argmax[n, c, ph, pw] = best
    return output, argmax


@pytest.mark.parametrize('scale', [1.0, 0.5])
def test_roi_pool_equals_a_plain_loop(mmcv_ops, ext, generator, device, scale):
    features, rois = make(generator)
    features = features.round()  # ties: the first pixel in reading order
    expected, positions = loop_roi_pool(features, rois, (2, 3), scale)
    pooled = mmcv_ops.roi_pool(features.to(device), rois.to(device), (2, 3), scale)
    assert torch.equal(pooled.cpu(), expected)
    output, argmax = torch.zeros_like(expected), torch.zeros_like(expected, dtype=torch.int)
    ext.roi_pool_forward(features, rois, output, argmax, pooled_height=2, pooled_width=3, spatial_scale=scale)
    assert torch.equal(argmax.long(), positions)


def test_roi_pool_gradient(mmcv_ops, generator):
    features, rois = make(generator, torch.float64)
    assert torch.autograd.gradcheck(lambda f: mmcv_ops.roi_pool(f, rois, 2, 0.5), features.requires_grad_())


def test_roi_pool_does_not_change_inverted_rois(ext):
    output, argmax = torch.full((1, 1, 1, 1), 7.0), torch.full((1, 1, 1, 1), 5, dtype=torch.int)
    ext.roi_pool_forward(torch.ones(1, 1, 4, 4), torch.tensor([[0.0, 3.0, 0.0, 1.0, 2.0]]), output, argmax, 1, 1, 1.0)
    assert output.item() == 7
    assert argmax.item() == 5


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_roi_pool_half(mmcv_ops, generator, dtype):
    features, rois = make(generator, dtype)
    half = mmcv_ops.roi_pool(features.requires_grad_(), rois, 2, 1.0)
    assert torch.equal(half, mmcv_ops.roi_pool(features.float(), rois.float(), 2, 1.0).to(dtype))
    half.sum().backward()
    assert features.grad.sum() == half.numel() - (half == 0).sum()


@pytest.mark.parametrize('ratio', [0, 2])
def test_deform_roi_pool_equals_a_plain_loop(mmcv_ops, generator, device, ratio):
    features, rois = make(generator)
    shifts = torch.randn(len(rois), 2, 2, 3, generator=generator)
    args = (features.to(device), rois.to(device))
    pooled = mmcv_ops.deform_roi_pool(*args, shifts.to(device), (2, 3), 0.5, ratio, 0.1)
    expected = loop_roi_align(features, rois, (2, 3), 0.5, ratio, 'avg', True, shifts, 0.1)
    torch.testing.assert_close(pooled.cpu().double(), expected, atol=1e-5, rtol=1e-5)
    plain = mmcv_ops.deform_roi_pool(*args, None, (2, 3), 0.5, ratio, 0.1)
    torch.testing.assert_close(plain.cpu(), mmcv_ops.roi_align(features, rois, (2, 3), 0.5, ratio, 'avg', True))


def test_deform_roi_pool_gradient(mmcv_ops, generator):
    features = torch.randn(2, 2, 8, 9, generator=generator, dtype=torch.float64).requires_grad_()
    rois = torch.tensor(
        [[0, 2.0, 3.0, 11.0, 12.0], [1, 4.0, 3.0, 10.0, 9.0]], dtype=torch.float64
    )  # inside the map, also after the shifts
    shifts = torch.rand(2, 2, 2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, s: mmcv_ops.deform_roi_pool(f, rois, s, (2, 2), 0.5, 2, 0.1), (features, shifts)
    )


def test_chunks_do_not_matter(mmcv_ops, generator, monkeypatch):
    from addp_mm.compat.ops import roi_grid

    features, rois = make(generator)
    shifts = torch.randn(len(rois), 2, 2, 2, generator=generator)

    def everything():
        return torch.cat(
            [
                mmcv_ops.roi_align(features, rois, 2, 1.0, 0, 'max', True),
                mmcv_ops.roi_pool(features, rois, 2, 1.0),
                mmcv_ops.deform_roi_pool(features, rois, shifts, 2, 1.0, 0, 0.1),
            ]
        )

    whole = everything()
    monkeypatch.setattr(roi_grid, '_CHUNK_ELEMENTS', 1)
    assert torch.equal(everything(), whole)


def test_deterministic_setting_is_relaxed_only_inside():
    from addp_mm.compat.ops.common import allow_atomics

    torch.use_deterministic_algorithms(True)
    try:
        with allow_atomics():
            assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    with allow_atomics():
        assert not torch.are_deterministic_algorithms_enabled()
