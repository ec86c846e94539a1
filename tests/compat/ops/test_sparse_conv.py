# Copyright (c) addp_mm contributors. Apache-2.0.
"""Sparse convolutions against dense ones."""

import math

import pytest
import torch
import torch.nn.functional as F

SHAPE = (5, 6, 4)


def voxels(generator, device='cpu', channels=3, count=40):
    """Positions (N, 4) without repetition, in random order, and features."""
    flat = torch.randperm(2 * math.prod(SHAPE), generator=generator)[:count]
    columns = []
    for size in reversed(SHAPE):
        columns.insert(0, flat % size)
        flat = flat // size
    features = torch.randn(count, channels, generator=generator, dtype=torch.float64)
    return torch.stack([flat, *columns], 1).int().to(device), features.to(device)


def dense(indices, features, shape=SHAPE):
    """(2, C, *shape); 0 where there is no voxel."""
    maps = features.new_zeros(2, *shape, features.size(1))
    return maps.index_put(tuple(indices.long().T), features).permute(0, 4, 1, 2, 3)


def at(maps, indices):
    return maps.permute(0, 2, 3, 4, 1)[tuple(indices.long().T)]


def pairs_of(ops, indices, **settings):
    return ops.sparse_ops.get_indice_pairs(indices, 2, list(SHAPE), **settings)


def convolve(ext, features, filters, rules, inverse=0, outputs=None):
    """The operator, with its gradients."""
    found, pairs, number = rules

    class Convolve(torch.autograd.Function):
        @staticmethod
        def forward(ctx, rows, taps):
            ctx.save_for_backward(rows, taps)
            return ext.indice_conv_forward(
                rows, taps, pairs, number, len(found) if outputs is None else outputs, inverse, 0
            )

        @staticmethod
        def backward(ctx, flow):
            return tuple(ext.indice_conv_backward(*ctx.saved_tensors, flow, pairs, number, inverse, 0))

    return Convolve.apply(features, filters)


def compare(found, expected, leaves, generator):
    """Values and gradients."""
    torch.testing.assert_close(found, expected)
    flow = torch.randn(found.shape, generator=generator, dtype=found.dtype).to(found.device)
    torch.testing.assert_close(torch.autograd.grad(found, leaves, flow), torch.autograd.grad(expected, leaves, flow))


CONVOLUTIONS = [
    dict(ksize=3, stride=1, padding=1),
    dict(ksize=3, stride=2, padding=1),
    dict(ksize=[1, 2, 3], stride=[1, 2, 1], padding=[0, 0, 2], dilation=[1, 1, 2]),
]


@pytest.mark.parametrize('settings', CONVOLUTIONS)
def test_convolution(ext, mmcv_ops, generator, device, settings):
    indices, features = voxels(generator, device)
    rules = pairs_of(mmcv_ops, indices, **settings)
    size = settings['ksize'] if isinstance(settings['ksize'], list) else [3] * 3
    filters = torch.randn(*size, 3, 2, generator=generator, dtype=torch.float64).to(device)
    features.requires_grad_()
    filters.requires_grad_()
    given = {name: value for name, value in settings.items() if name != 'ksize'}
    maps = F.conv3d(dense(indices, features), filters.permute(4, 3, 0, 1, 2), **given)
    reached = F.conv3d(
        dense(indices, torch.ones_like(features[:, :1])), torch.ones_like(filters[..., 0, 0])[None, None], **given
    )
    assert rules[0].tolist() == reached[:, 0].round().nonzero().tolist()  # sorted
    assert rules[0].dtype == torch.int32
    compare(convolve(ext, features, filters, rules), at(maps, rules[0]), (features, filters), generator)
    reduced = at(maps, rules[0]).detach().requires_grad_()
    back = convolve(ext, reduced, filters.transpose(-1, -2), rules, inverse=1, outputs=len(indices))
    small, back_filters = dense(rules[0], reduced, maps.shape[2:]), filters.permute(4, 3, 0, 1, 2)
    left_out = [
        want - size
        for want, size in zip(SHAPE, F.conv_transpose3d(small, back_filters, **given).shape[2:], strict=True)
    ]
    maps = F.conv_transpose3d(small, back_filters, output_padding=left_out, **given)
    compare(back, at(maps, indices), (reduced, filters), generator)


@pytest.mark.parametrize('size', [[3, 3, 3], [1, 3, 5]])
def test_convolution_of_submanifolds(ext, mmcv_ops, generator, device, size):
    indices, features = voxels(generator, device)
    rules = pairs_of(mmcv_ops, indices, ksize=size, stride=2, subm=True)  # the stride has no meaning
    filters = torch.randn(*size, 3, 2, generator=generator, dtype=torch.float64).to(device).requires_grad_()
    features.requires_grad_()
    maps = F.conv3d(dense(indices, features), filters.permute(4, 3, 0, 1, 2), padding=[s // 2 for s in size])
    assert rules[0] is indices
    compare(convolve(ext, features, filters, rules), at(maps, indices), (features, filters), generator)


def test_transposed_convolution(ext, mmcv_ops, generator, device):
    indices, features = voxels(generator, device, count=10)
    rules = pairs_of(mmcv_ops, indices, ksize=3, stride=2, padding=1, out_padding=1, transpose=True)
    filters = torch.randn(3, 3, 3, 3, 2, generator=generator, dtype=torch.float64).to(device).requires_grad_()
    features.requires_grad_()
    given = dict(stride=2, padding=1, output_padding=1)
    maps = F.conv_transpose3d(dense(indices, features), filters.permute(3, 4, 0, 1, 2), **given)
    assert set(map(tuple, rules[0].tolist())) == set(map(tuple, maps[:, 0].nonzero().tolist()))
    compare(convolve(ext, features, filters, rules), at(maps, rules[0]), (features, filters), generator)


def test_largest_features(ext, mmcv_ops, generator, device):
    indices, features = voxels(generator, device)
    features[3] = features[4] = 7.0
    rules = pairs_of(mmcv_ops, indices, ksize=2, stride=2)
    found = ext.indice_maxpool_forward(features, *rules[1:], len(rules[0]))
    expected = at(F.max_pool3d(dense(indices, features), 2), rules[0])  # zeros take part, as in mmcv
    assert torch.equal(found, expected.clamp(min=0))
    flow = torch.randn(found.shape, generator=generator, dtype=torch.float64).to(device)
    gradient = ext.indice_maxpool_backward(features, found, flow, *rules[1:])
    window = {tuple(row): number for number, row in enumerate(rules[0].tolist())}
    for position, values, row in zip(indices.tolist(), features, gradient, strict=True):
        number = window.get((position[0], *(p // 2 for p in position[1:])))
        share = torch.zeros_like(row) if number is None else flow[number] * (values == found[number])
        assert torch.equal(row, share)
    features[0] = torch.nan
    assert ext.indice_maxpool_forward(features, *rules[1:], len(rules[0])).isfinite().all()


@pytest.mark.parametrize('dims', [2, 3, 4])
def test_layers(mmcv_ops, generator, dims):
    indices = torch.cartesian_prod(*[torch.arange(2)] * (dims + 1)).int()
    values = torch.randn(len(indices), 2, generator=generator).requires_grad_()
    tensor = mmcv_ops.SparseConvTensor(values, indices, [2] * dims, 2, grid=torch.zeros(9) if dims < 4 else None)
    layer = getattr(mmcv_ops.sparse_conv, f'SubMConv{dims}d')(2, 3, 3, padding=1)
    output = layer(tensor).features
    centre = layer.weight[(1,) * dims]
    alone = layer(mmcv_ops.SparseConvTensor(values[:1], indices[:1], [2] * dims, 2)).features
    torch.testing.assert_close(alone, values[:1] @ centre + layer.bias)
    output.sum().backward()
    torch.testing.assert_close(
        values.grad[0], layer.weight.detach().sum(-1)[(slice(0, 2),) * dims].flatten(0, -2).sum(0)
    )


def test_half_precision_and_bias(ext, mmcv_ops, generator):
    indices, features = voxels(generator)
    rules = pairs_of(mmcv_ops, indices, ksize=3, subm=True)
    filters, bias = torch.randn(3, 3, 3, 3, 2, generator=generator).half(), torch.randn(2, generator=generator).half()
    half = ext.fused_indice_conv_forward(features.half(), filters, bias, *rules[1:], len(indices), 0, 1)
    single = ext.indice_conv_forward(features.half().float(), filters.float(), *rules[1:], len(indices), 0, 1)
    assert torch.equal(half, (single + bias.float()).half())
    grads = ext.indice_conv_backward(features.half(), filters, half, *rules[1:], 0, 1)
    assert [grad.dtype for grad in grads] == [torch.float16] * 2


@pytest.mark.parametrize('subm', [True, False])
def test_no_voxel(ext, mmcv_ops, subm):
    indices, pairs, number = pairs_of(mmcv_ops, torch.zeros(0, 4).int(), ksize=3, subm=subm)
    assert indices.shape == (0, 4)
    assert (pairs.shape, number.tolist()) == ((27, 2, 0), [0] * 27)
    output = ext.indice_conv_forward(torch.zeros(0, 3), torch.ones(3, 3, 3, 3, 2), pairs, number, 0, 0, 0)
    assert output.shape == (0, 2)
