# Copyright (c) addp_mm contributors. Apache-2.0.
import math

import pytest
import torch

SETTINGS = [dict(stride=1, padding=1, dilation=1, groups=1, deform_groups=1),
            dict(stride=2, padding=2, dilation=2, groups=2, deform_groups=2),
            dict(stride=(2, 1), padding=(0, 1), dilation=(1, 2), groups=1, deform_groups=4)]  # yapf: disable


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def output_size(size, kernel, setting):
    return [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(
            size, kernel, pair(setting['stride']), pair(setting['padding']), pair(setting['dilation']), strict=True
        )
    ]


def make(generator, setting, dtype=torch.float64, batch=2, channels=4, size=(6, 5), kernel=(3, 2)):
    height, width = output_size(size, kernel, setting)
    points = setting['deform_groups'] * kernel[0] * kernel[1]

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return dict(
        input=draw(batch, channels, *size),
        offset=draw(batch, 2 * points, height, width) * 2,
        mask=draw(batch, points, height, width),
        bias=draw(6),
        weight=draw(6, channels // setting['groups'], *kernel),
    )


def pixel(image, y, x):
    """Bilinear value of (C, H, W) at a point, zeros outside."""
    height, width = image.shape[1:]
    value = torch.zeros(image.size(0), dtype=image.dtype)
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                value = value + image[:, row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return value


def loop_deform_conv(t, setting, modulated):
    (sh, sw), (ph, pw), (dh, dw) = (pair(setting[k]) for k in ('stride', 'padding', 'dilation'))
    groups, deform_groups = setting['groups'], setting['deform_groups']
    batch, channels, *size = t['input'].shape
    outs, ins, kh, kw = t['weight'].shape
    height, width = output_size(size, (kh, kw), setting)
    output = torch.zeros(batch, outs, height, width, dtype=t['input'].dtype)
    part, share = channels // deform_groups, outs // groups
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                window = torch.zeros(channels, kh, kw, dtype=output.dtype)
                for g in range(deform_groups):
                    for i in range(kh):
                        for j in range(kw):
                            k = (g * kh + i) * kw + j
                            dy, dx = t['offset'][b, 2 * k : 2 * k + 2, y, x].tolist()
                            value = pixel(
                                t['input'][b, g * part : (g + 1) * part],
                                y * sh - ph + i * dh + dy,
                                x * sw - pw + j * dw + dx,
                            )
                            window[g * part : (g + 1) * part, i, j] = value * (
                                t['mask'][b, k, y, x] if modulated else 1
                            )
                for o in range(outs):
                    first = o // share * ins
                    output[b, o, y, x] = (t['weight'][o] * window[first : first + ins]).sum()
    return output + t['bias'][:, None, None] if modulated else output


def run(mmcv_ops, t, setting, modulated, **change):
    t = {**t, **change}
    numbers = (setting['stride'], setting['padding'], setting['dilation'], setting['groups'], setting['deform_groups'])
    if modulated:
        return mmcv_ops.modulated_deform_conv2d(t['input'], t['offset'], t['mask'], t['weight'], t['bias'], *numbers)
    return mmcv_ops.deform_conv2d(t['input'], t['offset'], t['weight'], *numbers)


@pytest.mark.parametrize('modulated', [False, True])
@pytest.mark.parametrize('setting', SETTINGS)
def test_equals_a_plain_loop(mmcv_ops, generator, device, setting, modulated):
    t = make(generator, setting)
    result = run(mmcv_ops, {k: v.to(device) for k, v in t.items()}, setting, modulated)
    torch.testing.assert_close(result.cpu(), loop_deform_conv(t, setting, modulated))


def larger(generator, t, size):
    """Offsets and masks of ``size``, and the numbers that mmcv's kernel reads of them."""
    given, read = {}, {}
    for name in ('offset', 'mask'):
        batch, channels, height, width = t[name].shape
        given[name] = torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)
        read[name] = torch.empty_like(t[name])
        for b in range(batch):
            numbers = given[name][b].flatten().tolist()
            for index in range(channels * height * width):
                c, rest = divmod(index, height * width)
                read[name][b, c, rest // width, rest % width] = numbers[index]
    return given, read


@pytest.mark.parametrize('setting', SETTINGS)
@pytest.mark.parametrize('size', [(9, 8), (6, 9), (1, 200)])
def test_larger_offsets_are_read_as_by_the_kernel(mmcv_ops, generator, device, setting, size):
    t = make(generator, setting)
    given, read = larger(generator, t, size)
    result = run(mmcv_ops, {k: v.to(device) for k, v in {**t, **given}.items()}, setting, True)
    torch.testing.assert_close(result.cpu(), loop_deform_conv({**t, **read}, setting, True))


def test_gradient_of_larger_offsets(mmcv_ops, generator):
    setting = SETTINGS[1]
    t = make(generator, setting, batch=2, size=(4, 4))
    given, _ = larger(generator, t, (4, 5))
    leaves = [given['offset'].requires_grad_(), given['mask'].requires_grad_()]
    assert torch.autograd.gradcheck(
        lambda offset, mask: run(mmcv_ops, t, setting, True, offset=offset, mask=mask), leaves
    )


def test_smaller_offsets_are_refused(mmcv_ops, generator):
    t = make(generator, SETTINGS[0])
    with pytest.raises(ValueError, match='fewer than'):
        run(mmcv_ops, t, SETTINGS[0], True, mask=t['mask'][..., :-1])


def test_dyhead(mmcv_ops):
    """Its blocks use the offsets of one level for the level above, which is smaller."""
    from mmdet.models.necks import DyHead

    neck = DyHead(8, 16, num_blocks=2)
    maps = neck([torch.rand(2, 8, 64 // 2**i, 64 // 2**i) for i in range(4)])
    assert [tuple(one.shape) for one in maps] == [(2, 16, 64 // 2**i, 64 // 2**i) for i in range(4)]
    sum(one.sum() for one in maps).backward()
    assert all(p.grad.isfinite().all() for p in neck.parameters())


@pytest.mark.parametrize('modulated', [False, True])
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf, 1e30])
def test_a_position_that_is_not_finite_reads_zeros(mmcv_ops, generator, modulated, value):
    setting = SETTINGS[0]
    t = make(generator, setting)
    t['offset'][0, 1, 2, 1] = value
    outside = t['offset'].clone()
    outside[0, 1, 2, 1] = 1000
    leaf = t['offset'].requires_grad_()
    result = run(mmcv_ops, t, setting, modulated)
    torch.testing.assert_close(result, loop_deform_conv({**t, 'offset': outside}, setting, modulated))
    result.sum().backward()
    assert leaf.grad[0, 1, 2, 1] == 0
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize('modulated', [False, True])
def test_memory_order_and_two_dtypes(mmcv_ops, generator, modulated):
    setting = SETTINGS[0]
    t = make(generator, setting, torch.float32)
    expected = run(mmcv_ops, t, setting, modulated)
    strided = {k: v.to(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in t.items()}
    torch.testing.assert_close(run(mmcv_ops, strided, setting, modulated), expected)
    # under autocast a convolution gives the offsets in bfloat16; mmcv casts all others to it
    half = {k: v.bfloat16() for k, v in t.items()}
    mixed = run(mmcv_ops, {**t, 'offset': half['offset']}, setting, modulated)
    assert torch.equal(mixed, run(mmcv_ops, half, setting, modulated))


@pytest.mark.parametrize('modulated', [False, True])
@pytest.mark.parametrize('setting', SETTINGS[1:])
def test_gradient(mmcv_ops, generator, setting, modulated):
    t = make(generator, setting, batch=1, size=(4, 4))
    names = ['input', 'offset', 'weight'] + (['mask', 'bias'] if modulated else [])
    leaves = [t[name].requires_grad_() for name in names]
    assert torch.autograd.gradcheck(
        lambda *args: run(mmcv_ops, t, setting, modulated, **dict(zip(names, args, strict=True))), leaves
    )


@pytest.mark.parametrize('modulated', [False, True])
def test_no_offset_gradient_a_whole_pixel_outside(mmcv_ops, generator, modulated):
    # zero offsets and padding 1 put the first row and column exactly at -1: mmcv's kernels have no
    # gradient there
    setting = SETTINGS[0]
    t = make(generator, setting, kernel=(3, 3))
    offset = torch.zeros_like(t['offset']).requires_grad_()
    run(mmcv_ops, t, setting, modulated, offset=offset).sum().backward()
    grad = offset.grad.unflatten(1, (3, 3, 2))
    size = grad.shape[-2:]
    for i in range(3):
        for j in range(3):
            rows = torch.arange(size[0]) - 1 + i
            columns = torch.arange(size[1]) - 1 + j
            outside = ((rows < 0) | (rows >= 6))[:, None] | ((columns < 0) | (columns >= 5))
            here = grad[:, i, j]
            assert not here[..., outside].any()
            assert here[..., ~outside].all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('modulated', [False, True])
def test_half_rounds_once(mmcv_ops, generator, dtype, modulated):
    setting = SETTINGS[0]
    t = make(generator, setting, dtype)
    leaf = t['input'].clone().requires_grad_()
    half = run(mmcv_ops, t, setting, modulated, input=leaf)
    exact = run(mmcv_ops, {k: v.float() for k, v in t.items()}, setting, modulated)
    assert half.dtype == dtype
    assert torch.equal(half, exact.to(dtype))
    half.sum().backward()
    assert leaf.grad.dtype == dtype
    assert leaf.grad.abs().sum() > 0


def test_gradients_are_added_and_scaled(ext, generator):
    setting = SETTINGS[0]
    t = make(generator, setting)
    grad = torch.ones(2, 6, *output_size((6, 5), (3, 2), setting), dtype=torch.float64)
    numbers = dict(
        kW=2, kH=3, dW=1, dH=1, padW=1, padH=1, dilationW=1, dilationH=1, group=1, deformable_group=1, im2col_step=2
    )
    empty = grad.new_empty(0)
    once, twice = torch.zeros_like(t['weight']), torch.ones_like(t['weight'])
    ext.deform_conv_backward_parameters(t['input'], t['offset'], grad, once, empty, empty, scale=1, **numbers)
    ext.deform_conv_backward_parameters(t['input'], t['offset'], grad, twice, empty, empty, scale=2, **numbers)
    torch.testing.assert_close(twice, 1 + 2 * once)


def test_empty_batch(ext, generator):
    t = make(generator, SETTINGS[0], torch.float32, batch=0)
    sizes = dict(
        kernel_h=3,
        kernel_w=2,
        stride_h=1,
        stride_w=1,
        pad_h=1,
        pad_w=1,
        dilation_h=1,
        dilation_w=1,
        group=1,
        deformable_group=1,
        with_bias=True,
    )
    output, grads = torch.zeros(0, 6, 6, 6), {name: torch.zeros_like(value) for name, value in t.items()}
    ext.modulated_deform_conv_forward(
        t['input'], t['weight'], t['bias'], output, t['offset'], t['mask'], output, output, **sizes
    )
    ext.modulated_deform_conv_backward(
        t['input'],
        t['weight'],
        t['bias'],
        output,
        t['offset'],
        t['mask'],
        output,
        grads['input'],
        grads['weight'],
        grads['bias'],
        grads['offset'],
        grads['mask'],
        output,
        **sizes,
    )
    assert not grads['weight'].any()
    assert not grads['bias'].any()


def test_layers_run(mmcv_ops, generator):
    images = torch.randn(2, 4, 8, 8, generator=generator)
    for layer in (mmcv_ops.DeformConv2dPack, mmcv_ops.ModulatedDeformConv2dPack):
        layer = layer(4, 6, 3, padding=1)
        layer(images).sum().backward()
        assert layer.conv_offset.weight.grad.abs().sum() > 0
