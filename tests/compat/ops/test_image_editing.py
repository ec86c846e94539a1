# Copyright (c) addp_mm contributors. Apache-2.0.
"""Correlation of two maps, and the operators of image-editing networks."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F


def draw(generator, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def at(image, y, x):
    """Channels (C,) of a pixel, zeros outside."""
    inside = 0 <= y < image.shape[1] and 0 <= x < image.shape[2]
    return image[:, y, x] if inside else np.zeros(len(image))


SETTINGS = [
    dict(kernel_size=1, max_displacement=1, stride=1, padding=0),
    dict(kernel_size=3, max_displacement=1, stride=2, padding=2, dilation=2, dilation_patch=2),
    dict(kernel_size=(1, 2), max_displacement=2, stride=(2, 1), padding=(1, 0), dilation_patch=(1, 3)),
]


def loop_correlation(first, second, output, **settings):
    pair = {name: value if isinstance(value, tuple) else (value, value) for name, value in settings.items()}
    (rows, columns), stride, padding = (pair[name] for name in ('kernel_size', 'stride', 'padding'))
    dilation, step = pair.get('dilation', (1, 1)), pair.get('dilation_patch', (1, 1))
    radius = settings['max_displacement']
    for n, p, q, h, w in np.ndindex(*output.shape):
        for i, j in np.ndindex(rows, columns):
            y, x = h * stride[0] - padding[0] + i * dilation[0], w * stride[1] - padding[1] + j * dilation[1]
            other = at(second[n], y + (p - radius) * step[0], x + (q - radius) * step[1])
            output[n, p, q, h, w] += (at(first[n], y, x) * other).sum()


@pytest.mark.parametrize('settings', SETTINGS)
def test_correlation(mmcv_ops, generator, device, settings):
    first, second = draw(generator, 2, 3, 4, 5), draw(generator, 2, 3, 4, 5)
    layer = mmcv_ops.Correlation(**settings)
    found = layer(first.to(device), second.to(device)).cpu()
    expected = np.zeros(found.shape)
    loop_correlation(first.numpy(), second.numpy(), expected, **settings)
    torch.testing.assert_close(found, torch.from_numpy(expected))
    half = layer(first.half(), second.half())
    torch.testing.assert_close(half.double(), found, atol=0.05, rtol=0.01)
    few = [maps[:1, :2].clone().requires_grad_() for maps in (first, second)]
    assert torch.autograd.gradcheck(layer, few)


def test_correlation_of_points_is_a_product(mmcv_ops):
    first, second = torch.full((1, 2, 1, 3), 2.0), torch.arange(6.0).view(1, 2, 1, 3)
    found = mmcv_ops.Correlation(max_displacement=1)(first, second)  # shifts in a map of one row
    assert found[0, 1, :, 0].tolist() == [[0, 6, 10], [6, 10, 14], [10, 14, 0]]
    assert not found[0, ::2].any()


def test_correlation_of_no_image(mmcv_ops):
    empty = torch.zeros(0, 2, 4, 4, requires_grad=True)
    output = mmcv_ops.Correlation(max_displacement=1)(empty, empty)
    output.sum().backward()
    assert output.shape == (0, 3, 3, 4, 4)


# up x y, down x y, padding x0 x1 y0 y1
RESAMPLINGS = [
    (1, 1, 1, 1, 0, 0, 0, 0),
    (2, 3, 1, 1, 1, 2, 0, 3),
    (1, 2, 3, 2, 4, 1, -1, 2),
    (2, 1, 2, 1, -2, 3, 1, -1),
    (4, 6, 2, 4, 3, 1, -3, 9),
]


def loop_upfirdn(image, taps, up, down, pad, flip):
    """Each input pixel lands somewhere; each output pixel asks where it reads."""
    (height, width), (rows, columns) = image.shape, taps.shape
    size = [
        (count * grow + before + after - length) // step + 1
        for count, grow, before, after, length, step in zip(
            image.shape, up, pad[::2], pad[1::2], taps.shape, down, strict=True
        )
    ]
    output = np.zeros(size)
    for y, x in np.ndindex(*size):
        for i, j in np.ndindex(rows, columns):
            row, column = y * down[0] + i - pad[0], x * down[1] + j - pad[2]
            if row % up[0] or column % up[1] or not (0 <= row < height * up[0] and 0 <= column < width * up[1]):
                continue
            tap = taps[i, j] if flip else taps[rows - 1 - i, columns - 1 - j]
            output[y, x] += tap * image[row // up[0], column // up[1]]
    return output


@pytest.mark.parametrize('flip', [True, False])
@pytest.mark.parametrize('settings', RESAMPLINGS)
def test_upfirdn2d(ext, generator, device, settings, flip):
    images, taps = draw(generator, 2, 2, 5, 6), draw(generator, 2, 3)
    upx, upy, downx, downy, left, right, top, bottom = settings
    found = ext.upfirdn2d(images.to(device), taps.float().to(device), *settings, flip, 1.5).cpu()
    for image, result in zip(images.flatten(0, 1).numpy(), found.flatten(0, 1), strict=True):
        taps_32 = taps.float().double().numpy()
        expected = loop_upfirdn(image, taps_32, (upy, upx), (downy, downx), (top, bottom, left, right), flip)
        torch.testing.assert_close(result, torch.from_numpy(expected) * 1.5)
    half = ext.upfirdn2d(images.half(), taps.float(), *settings, flip, 1.5)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.double(), found, atol=0.02, rtol=0.01)


def test_upfirdn2d_of_no_image(ext):
    assert ext.upfirdn2d(torch.zeros(0, 2, 3, 4), torch.ones(2, 2), 2, 1, 1, 1, 1, 0, 0, 1, False, 1.0).shape == (
        0,
        2,
        3,
        8,
    )


def resampler(ext, settings, flip):
    """A function whose gradient is the operator itself, with the settings that mmcv uses."""
    upx, upy, downx, downy, left, _, top, _ = settings

    class Resample(torch.autograd.Function):
        @staticmethod
        def forward(ctx, images, taps):
            output = ext.upfirdn2d(images, taps, *settings, flip, 1.0)
            ctx.save_for_backward(taps)
            ctx.sizes = images.shape[2:], output.shape[2:]
            return output

        @staticmethod
        def backward(ctx, grad):
            (taps,) = ctx.saved_tensors
            (height, width), (rows, columns) = ctx.sizes
            x = taps.size(1) - left - 1, width * upx - columns * downx + left - upx + 1
            y = taps.size(0) - top - 1, height * upy - rows * downy + top - upy + 1
            return resampler(ext, (downx, downy, upx, upy, *x, *y), not flip).apply(grad, taps), None

    return Resample


@pytest.mark.parametrize('settings', RESAMPLINGS)
def test_upfirdn2d_is_its_own_gradient(ext, generator, settings):
    images, taps = draw(generator, 1, 1, 4, 5).requires_grad_(), draw(generator, 2, 3)
    function = resampler(ext, settings, False)
    assert torch.autograd.gradcheck(lambda x: function.apply(x, taps), images)
    assert torch.autograd.gradgradcheck(lambda x: function.apply(x, taps), images)


@pytest.mark.parametrize('shape', [(4, 3), (2, 3, 2, 4)])
def test_fused_bias_leakyrelu(mmcv_ops, generator, device, shape):
    # mmcv's layer takes this path on a GPU only
    function = mmcv_ops.fused_bias_leakyrelu.__globals__['FusedBiasLeakyReLUFunction'].apply
    values, bias = draw(generator, *shape), draw(generator, 3)
    expected = (values + bias.view(3, *[1] * (len(shape) - 2))) * 1.5
    expected = torch.maximum(expected, expected * 0.2)
    found = function(values.to(device), bias.to(device), 0.2, 1.5)
    torch.testing.assert_close(found.cpu(), expected)
    torch.testing.assert_close(function(values.half(), bias.half(), 0.2, 1.5).double(), expected, atol=0.01, rtol=0.01)
    leaves = values.requires_grad_(), bias.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, b: function(x, b, 0.2, 1.5), leaves)
    assert torch.autograd.gradgradcheck(lambda x, b: function(x, b, 0.2, 1.5), leaves)


def test_fused_bias_leakyrelu_of_other_settings(ext):
    values, bias, none = torch.tensor([[-1.0, 2.0]]), torch.tensor([0.5, 0.5]), torch.zeros(0)
    assert ext.fused_bias_leakyrelu(values, bias, none, 1, 0, 0.2, 2.0).tolist() == [[-1, 5]]
    assert ext.fused_bias_leakyrelu(values, none, values, 3, 2, 0.2, 2.0).tolist() == [[0, 0]]
    assert ext.fused_bias_leakyrelu(values[:0], bias, none, act=3, grad=0, alpha=0.2, scale=2.0).shape == (0, 2)
    with pytest.raises(ValueError, match='act must be 1 or 3, got 2'):
        ext.fused_bias_leakyrelu(values, bias, none, 2, 0, 0.2, 2.0)


NAMES = ['linear', 'relu', 'lrelu', 'tanh', 'sigmoid', 'elu', 'selu', 'softplus', 'swish']
ACTIVATIONS = dict(enumerate(NAMES, 1))


def biased(ext, number, clamp):
    """The operator with the arguments that mmcv's class passes on a GPU, and its derivatives."""
    none, settings = torch.zeros(0), (1, number, 0.3, 1.5, clamp)

    class Gradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, dy, x, b, y):
            ctx.save_for_backward(dy, x, b, y)
            return ext.bias_act(dy, b, x, y, none, 1, *settings)

        @staticmethod
        def backward(ctx, grad):
            dy, x, b, y = ctx.saved_tensors
            by_x = ext.bias_act(grad, b, x, y, dy, 2, *settings) if number > 3 else None
            return Gradient.apply(grad, x, b, y), by_x, None if by_x is None else by_x.sum((0, 2)), None

    class Forward(torch.autograd.Function):
        # mmcv keeps no result of linear functions and SiLU
        @staticmethod
        def forward(ctx, x, b):
            y = ext.bias_act(x, b, none, none, none, 0, *settings)
            ctx.save_for_backward(*((x, b) if number > 3 else (none, none)), none if number in (1, 9) else y)
            return y

        @staticmethod
        def backward(ctx, grad):
            by_x = Gradient.apply(grad, *ctx.saved_tensors)
            return by_x, by_x.sum((0, 2))

    return Forward.apply


@pytest.mark.parametrize('number', ACTIVATIONS)
def test_bias_act(ext, mmcv_ops, generator, device, number):
    clamp = -1 if number == 1 else 1.2
    values, bias = draw(generator, 2, 3, 4), draw(generator, 3)
    settings = dict(dim=1, act=ACTIVATIONS[number], alpha=0.3, gain=1.5, clamp=None if number == 1 else clamp)
    expected = mmcv_ops.bias_act(values, bias, **settings)  # plain PyTorch on a CPU
    function = biased(ext, number, clamp)
    torch.testing.assert_close(function(values.to(device), bias.to(device)).cpu(), expected)
    half = ext.bias_act(values.half(), bias.half(), *[torch.zeros(0)] * 3, 0, 1, number, 0.3, 1.5, clamp)
    torch.testing.assert_close(half.double(), expected, atol=0.01, rtol=0.01)
    leaves = values.requires_grad_(), bias.requires_grad_()
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


# up, down, padding left right top bottom, shapes of the filters
FILTERED = [
    (2, 1, (1, 2, 0, 3), (3,), (2, 3)),
    (1, 2, (0, 1, 1, 0), (2, 2), (3,)),
    (3, 2, (4, 2, -1, 5), (4,), (4,)),
    (1, 1, (0, 0, 0, 0), (1,), (1, 1)),
]


def filters_of(generator, shapes):
    return [draw(generator, *shape, dtype=torch.float32) for shape in shapes]


def plain_filtered(values, filters, bias, up, down, padding, gain, slope, clamp):
    """Each step by another function than the operator's."""
    fu, fd = (f[:, None] * f if f.dim() == 1 else f for f in (t.double() for t in filters))
    batch, channels, height, width = values.shape
    spread = values.new_zeros(batch, channels, height * up, width * up)
    spread[..., ::up, ::up] = values + bias[:, None, None]

    def convolve(maps, taps):
        return F.conv2d(maps.flatten(0, 1)[:, None], taps.flip(0, 1)[None, None]).unflatten(0, (batch, channels))[
            :, :, 0
        ]

    wide = convolve(F.pad(spread, padding), fu) * up**2 * gain
    return convolve(torch.where(wide < 0, wide * slope, wide).clamp(-clamp, clamp), fd)[..., ::down, ::down]


@pytest.mark.parametrize('settings', FILTERED)
def test_filtered_lrelu(ext, mmcv_ops, generator, device, settings):
    up, down, padding, *shapes = settings
    values, bias, filters = draw(generator, 2, 3, 5, 6), draw(generator, 3), filters_of(generator, shapes)
    expected = plain_filtered(values, filters, bias, up, down, padding, 1.4, 0.2, 3.0)
    settings = (up, down, *padding, 0, 0, 1.4, 0.2, 3.0, False)
    on_device = [t.to(device) for t in (*filters, bias, torch.zeros(0))]
    output, signs, code = ext.filtered_lrelu(values.to(device), *on_device, *settings, True)
    assert code == 0
    torch.testing.assert_close(output.cpu(), expected)
    unsigned = ext.filtered_lrelu(values.to(device), *on_device, *settings, False)
    assert torch.equal(unsigned[0], output)
    assert unsigned[1] is None
    wide = [
        size * up + sum(pads) - filters[0].shape[-axis] + 1
        for size, pads, axis in ((5, padding[2:], 2 if filters[0].dim() == 2 else 1), (6, padding[:2], 1))
    ]
    assert signs.shape == (2, 3, wide[0], -(-wide[1] // 16) * 4)
    half = ext.filtered_lrelu(values.half(), *filters, bias.half(), torch.zeros(0), *settings, False)[0]
    rounded = plain_filtered(values.half().double(), filters, bias.half().double(), up, down, padding, 1.4, 0.2, 3.0)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half, rounded.half(), atol=1e-3, rtol=1e-3)


def differentiable(mmcv_ops, up, down, padding, clamp):
    """The class that mmcv uses on a GPU; it computes float64 with the activation alone."""
    make = mmcv_ops.filtered_lrelu.__globals__['_filtered_lrelu_cuda']
    function = make(up=up, down=down, padding=list(padding), gain=1.4, slope=0.2, clamp=clamp).apply
    return lambda x, b, filters: function(x, *filters, b, None, 0, 0)


@pytest.mark.filterwarnings('ignore:filtered_lrelu called', 'ignore:Since aten')
@pytest.mark.parametrize('settings', FILTERED)
def test_filtered_lrelu_gradients(ext, mmcv_ops, generator, monkeypatch, settings):
    up, down, padding, *shapes = settings
    values, bias = draw(generator, 1, 2, 3, 4).requires_grad_(), draw(generator, 2).requires_grad_()
    filters = filters_of(generator, shapes)
    function = differentiable(mmcv_ops, up, down, padding, 1.5)
    plain = plain_filtered(values, filters, bias, up, down, padding, 1.4, 0.2, 1.5)
    torch.testing.assert_close(function(values, bias, filters), plain)
    assert torch.autograd.gradcheck(lambda x, b: function(x, b, filters), (values, bias))
    if settings is FILTERED[1]:  # seconds
        assert torch.autograd.gradgradcheck(lambda x, b: function(x, b, filters), (values, bias))
    flow = torch.randn(plain.shape, generator=generator, dtype=torch.float64)
    expected = torch.autograd.grad(plain, (values, bias), flow)
    for name in ('current_stream', 'default_stream'):
        monkeypatch.setattr(torch.cuda, name, lambda device: None)
    single = [t.detach().float().requires_grad_() for t in (values, bias)]  # the whole operator
    found = torch.autograd.grad(function(*single, filters), single, flow.float())
    torch.testing.assert_close([grad.double() for grad in found], list(expected), atol=1e-4, rtol=1e-4)


def test_signs_of_filtered_lrelu(ext):
    values = torch.tensor([[[[-1.0, 2, -9, 9, 0]]]])
    signs = ext.filtered_lrelu_act_(values, torch.zeros(0), 0, 0, 2.0, 0.5, 6.0, True)
    assert values.tolist() == [[[[-1, 4, -6, 6, 0]]]]
    assert signs.tolist() == [[[[0b10_10_00_01, 0, 0, 0]]]]
    flow = torch.ones(1, 1, 2, 4)  # one column further, from a row above on
    assert ext.filtered_lrelu_act_(flow, signs, 1, -1, 2.0, 0.5, math.inf, False) is None
    assert flow.tolist() == [[[[2, 2, 2, 2], [2, 0, 0, 2]]]]
    none = torch.zeros(0, 1, 2, 2)
    output = ext.filtered_lrelu(
        none, *[torch.ones(1, 1)] * 2, torch.zeros(1), torch.zeros(0), 2, 1, *[0] * 6, 1.0, 0.2, 1.0, False, False
    )
    assert output[0].shape == (0, 1, 4, 4)
