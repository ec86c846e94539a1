# Copyright (c) addp_mm contributors. Apache-2.0.
import inspect
import math

import pytest
import torch
import torch.nn.functional as F


def draw(generator, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


TARGET = torch.tensor([0, 2, 3, 1, 2, 3])  # 3 is background


def loop_sigmoid_focal_loss(logits, target, gamma, alpha, weight):
    loss = torch.zeros_like(logits)
    for n, row in enumerate(logits.tolist()):
        for c, x in enumerate(row):
            p = 1 / (1 + math.exp(-x))
            t = int(target[n])
            loss[n, c] = (-alpha * (1 - p)**gamma * math.log(p) if t == c else
                          -(1 - alpha) * p**gamma * math.log(1 - p))  # yapf: disable
            if weight is not None and t < len(weight):
                loss[n, c] *= weight[t]
    return loss


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize('weight', [None, torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)])
@pytest.mark.parametrize('gamma', [2.0, 1.5])
def test_sigmoid_focal_loss(mmcv_ops, generator, device, reduction, weight, gamma):
    logits = draw(generator, 6, 3)
    expected = loop_sigmoid_focal_loss(logits, TARGET, gamma, 0.25, weight)
    expected = {'none': expected, 'sum': expected.sum(), 'mean': expected.sum() / 6}[reduction]
    on_device = None if weight is None else weight.to(device)
    args = (TARGET.to(device), gamma, 0.25, on_device, reduction)
    torch.testing.assert_close(mmcv_ops.sigmoid_focal_loss(logits.to(device), *args).cpu(), expected)
    assert torch.autograd.gradcheck(lambda x: mmcv_ops.sigmoid_focal_loss(x, *args), logits.to(device).requires_grad_())


def test_sigmoid_focal_loss_of_extreme_logits(mmcv_ops):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = mmcv_ops.sigmoid_focal_loss(logits, torch.tensor([0, 0]), 2.0, 0.25, None, 'none')
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()
    assert not loss[0].any()
    assert loss[1].min() > 20


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize('weight', [None, torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)])
def test_softmax_focal_loss(mmcv_ops, generator, reduction, weight):
    logits, target = draw(generator, 5, 3), torch.tensor([0, 2, 1, -1, 2])
    expected = torch.zeros(5, dtype=torch.float64)
    for n, row in enumerate(logits.tolist()):
        if target[n] >= 0:
            p = math.exp(row[target[n]]) / sum(math.exp(x) for x in row)
            expected[n] = -0.25 * (1 - p) ** 2 * math.log(p) * (1 if weight is None else weight[target[n]])
    expected = {'none': expected, 'sum': expected.sum(), 'mean': expected.sum() / 5}[reduction]
    torch.testing.assert_close(mmcv_ops.softmax_focal_loss(logits, target, 2.0, 0.25, weight, reduction), expected)
    if reduction != 'none':  # here mmcv multiplies an (N, C) gradient by an (N,) gradient
        assert torch.autograd.gradcheck(
            lambda x: mmcv_ops.softmax_focal_loss(x, target, 2.0, 0.25, weight, reduction), logits.requires_grad_()
        )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('name', ['sigmoid_focal_loss', 'softmax_focal_loss'])
def test_focal_loss_half(mmcv_ops, generator, dtype, name):
    loss = getattr(mmcv_ops, name)
    logits = draw(generator, 6, 4, dtype=dtype)
    half = loss(logits.clone().requires_grad_(), TARGET, 2.0, 0.25, None, 'sum')
    exact = loss(logits.float(), TARGET, 2.0, 0.25, None, 'sum')
    half.backward()
    assert half.dtype == dtype
    assert half.float().item() == pytest.approx(exact.item(), rel=2e-2)


@pytest.mark.parametrize('name', ['sigmoid_focal_loss', 'softmax_focal_loss'])
def test_focal_loss_of_nothing(mmcv_ops, name):
    loss = getattr(mmcv_ops, name)
    args = (torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, 'sum')
    logits = torch.zeros(0, 3, requires_grad=True)
    loss(logits, *args).backward()
    assert logits.grad.shape == (0, 3)


SHAPES = torch.tensor([[3, 4], [2, 2]])
STARTS = torch.tensor([0, 12])


def attention_inputs(generator, dtype=torch.float64, batch=3):
    value = draw(generator, batch, 16, 2, 3, dtype=dtype)
    locations = (torch.rand(batch, 5, 2, 2, 2, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.2).to(dtype)
    weights = draw(generator, batch, 5, 2, 2, 2, dtype=dtype)
    return value, locations, weights


def loop_attention(value, locations, weights):
    batch, queries, heads, levels, points = weights.shape
    output = torch.zeros(batch, queries, heads, value.size(-1), dtype=torch.float64)
    for b, q, m, level, p in torch.cartesian_prod(*(torch.arange(n) for n in weights.shape)).tolist():
        height, width = SHAPES[level].tolist()
        x, y = (locations[b, q, m, level, p].double() * torch.tensor([width, height]) - 0.5).tolist()
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    pixel = value[b, STARTS[level] + row * width + column, m].double()
                    part = (1 - abs(y - row)) * (1 - abs(x - column))
                    output[b, q, m] += weights[b, q, m, level, p].double() * part * pixel
    return output.flatten(2)


def attend(mmcv_ops, value, locations, weights):
    function = mmcv_ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction
    return function.apply(value, SHAPES.to(value.device), STARTS.to(value.device), locations, weights, 2)


def test_deformable_attention(mmcv_ops, generator, device):
    inputs = attention_inputs(generator)
    result = attend(mmcv_ops, *(t.to(device) for t in inputs))
    torch.testing.assert_close(result.cpu(), loop_attention(*inputs))
    leaves = [t.to(device).requires_grad_() for t in attention_inputs(generator, batch=1)]
    assert torch.autograd.gradcheck(lambda *args: attend(mmcv_ops, *args), leaves)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf, 1e30])
def test_a_location_that_is_not_finite_reads_zeros(mmcv_ops, generator, value):
    values, locations, weights = attention_inputs(generator)
    locations[0, 1, 0, 1, 1, 0] = value
    outside = locations.clone()
    outside[0, 1, 0, 1, 1, 0] = 50
    leaf = locations.requires_grad_()
    result = attend(mmcv_ops, values, leaf, weights)
    torch.testing.assert_close(result, loop_attention(values, outside, weights))
    result.sum().backward()
    assert leaf.grad[0, 1, 0, 1, 1, 0] == 0


@pytest.mark.parametrize('half', ['value', 'locations', 'weights'])
def test_deformable_attention_of_two_dtypes(mmcv_ops, generator, half):
    inputs = dict(zip(('value', 'locations', 'weights'), attention_inputs(generator, torch.float32), strict=True))
    inputs[half] = inputs[half].bfloat16()
    result = attend(mmcv_ops, *inputs.values())
    assert result.dtype == inputs['value'].dtype
    # mmcv casts the others to the dtype of the values
    expected = loop_attention(*(t.to(result.dtype).double() for t in inputs.values()))
    torch.testing.assert_close(result, expected.to(result.dtype))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_deformable_attention_half(mmcv_ops, generator, dtype):
    inputs = attention_inputs(generator, dtype)
    value = inputs[0].clone().requires_grad_()
    half = attend(mmcv_ops, value, *inputs[1:])
    torch.testing.assert_close(half.double(), loop_attention(*inputs), atol=2e-2, rtol=2e-2)
    half.sum().backward()
    assert half.dtype == value.grad.dtype == dtype


def test_deformable_attention_equals_mmcvs_fallback(mmcv_ops, generator):
    value, locations, weights = attention_inputs(generator)
    fallback = inspect.unwrap(mmcv_ops.multi_scale_deform_attn.multi_scale_deformable_attn_pytorch)
    torch.testing.assert_close(attend(mmcv_ops, value, locations, weights), fallback(value, SHAPES, locations, weights))


def test_deformable_attention_of_nothing(mmcv_ops, generator):
    value, locations, weights = attention_inputs(generator)
    for images, queries in ((0, 5), (3, 0)):
        leaf = value[:images].clone().requires_grad_()
        output = attend(mmcv_ops, leaf, locations[:images, :queries], weights[:images, :queries])
        output.sum().backward()
        assert output.shape == (images, queries, 6)
        assert not leaf.grad.any()


@pytest.mark.parametrize('kind', ['collect', 'distribute'])
@pytest.mark.parametrize('size', [(3, 2), (7, 5)])
def test_psa_mask(mmcv_ops, generator, kind, size):
    height, width = 3, 4
    masks = draw(generator, 2, size[0] * size[1], height, width)
    expected = torch.zeros(2, height * width, height, width, dtype=torch.float64)
    for h in range(height):
        for w in range(width):
            for i in range(size[0]):
                for j in range(size[1]):
                    y, x = h + i - (size[0] - 1) // 2, w + j - (size[1] - 1) // 2
                    if 0 <= y < height and 0 <= x < width:
                        value = masks[:, i * size[1] + j, h, w]
                        if kind == 'collect':
                            expected[:, y * width + x, h, w] = value
                        else:
                            expected[:, h * width + w, y, x] = value
    layer = mmcv_ops.PSAMask(kind, size)
    assert torch.equal(layer(masks), expected)
    assert torch.equal(layer(masks.half()), expected.half())
    assert torch.autograd.gradcheck(layer, masks.requires_grad_())


def test_psa_mask_in_another_memory_order(mmcv_ops, generator):
    masks = torch.randn(2, 15, 4, 6, generator=generator)
    expected = mmcv_ops.PSAMask('collect', (3, 5))(masks)
    last = masks.to(memory_format=torch.channels_last).requires_grad_()
    spread = mmcv_ops.PSAMask('collect', (3, 5))(last)
    assert torch.equal(spread, expected)
    spread.sum().backward()
    assert last.grad.any()


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('kernel,scale', [(3, 2), (5, 1), (1, 3)])
def test_carafe(mmcv_ops, ext, generator, groups, kernel, scale):
    features, height, width = draw(generator, 2, 4, 3, 4), 3 * scale, 4 * scale
    masks = draw(generator, 2, groups * kernel**2, height, width)
    expected = torch.zeros(2, 4, height, width, dtype=torch.float64)
    for c, y, x, i, j in torch.cartesian_prod(*(torch.arange(n) for n in (4, height, width, kernel, kernel))).tolist():
        row, column = y // scale + i - kernel // 2, x // scale + j - kernel // 2
        if 0 <= row < 3 and 0 <= column < 4:
            channel = (c // (4 // groups) * kernel + i) * kernel + j
            expected[:, c, y, x] += features[:, c, row, column] * masks[:, channel, y, x]
    torch.testing.assert_close(mmcv_ops.carafe(features, masks, kernel, groups, scale), expected)
    torch.testing.assert_close(mmcv_ops.carafe_naive(features, masks, kernel, groups, scale), expected)
    leaves = (features.requires_grad_(), masks.requires_grad_())
    assert torch.autograd.gradcheck(lambda f, m: mmcv_ops.carafe(f, m, kernel, groups, scale), leaves)
    half = mmcv_ops.carafe(features.bfloat16(), masks.bfloat16(), kernel, groups, scale)
    torch.testing.assert_close(half.double(), expected, atol=0.2, rtol=0.05)


@pytest.mark.parametrize('padding', [0, 1, 2])
def test_masked_conv(mmcv_ops, generator, padding):
    layer = mmcv_ops.MaskedConv2d(3, 4, 3, padding=padding)
    torch.nn.init.normal_(layer.bias, generator=generator)
    features = draw(generator, 1, 3, 5, 6, dtype=torch.float32)
    full = F.conv2d(features, layer.weight, layer.bias, padding=padding)
    mask = torch.rand(1, 5, 6, generator=generator) > 0.5
    height, width = full.shape[2:]
    mask[:, height:], mask[:, :, width:] = False, False
    seen = F.pad(mask, (0, max(width - 6, 0), 0, max(height - 5, 0)))[:, :height, :width]
    torch.testing.assert_close(layer(features, mask), full * seen[:, None])
    assert not layer(features, torch.zeros_like(mask)).any()


def test_sync_bn_alone_is_batch_norm(mmcv_ops, generator):
    ours, torchs = torch.nn.BatchNorm2d(4), torch.nn.BatchNorm2d(4)  # mmcv's own layer needs a process group
    function = mmcv_ops.sync_bn.SyncBatchNormFunction
    with torch.no_grad():
        for layer in (ours, torchs):
            layer.weight.copy_(torch.arange(4) + 0.5)
            layer.bias.copy_(torch.arange(4) - 2.0)
    images = draw(generator, 3, 4, 5, 5, dtype=torch.float32)
    a, b = images.clone().requires_grad_(), images.clone().requires_grad_()
    out = function.apply(a, ours.running_mean, ours.running_var, ours.weight, ours.bias, 0.1, 1e-5, None, 1, 'default')
    expected = torchs(b)
    probe = draw(generator, 3, 4, 5, 5, dtype=torch.float32)
    (out * probe).sum().backward()
    (expected * probe).sum().backward()
    pairs = [
        (out, expected),
        (a.grad, b.grad),
        (ours.weight.grad, torchs.weight.grad),
        (ours.bias.grad, torchs.bias.grad),
        (ours.running_mean, torchs.running_mean),
        (ours.running_var, torchs.running_var),
    ]
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
