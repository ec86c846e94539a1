# Copyright (c) addp_mm contributors. Apache-2.0.
"""SimpleFPN and FourScaleNeck."""

import pytest
import torch
import torch.nn.functional as F

from addp_mm.models.necks import FourScaleNeck, SimpleFPN
from addp_mm.registry import MODELS


def maps(count: int, channels: int = 16, size: tuple = (4, 6)) -> list:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, channels, *size, generator=generator) for _ in range(count)]


def test_simple_fpn_levels():
    neck = SimpleFPN(16, 8, num_outs=5)
    outs = neck(maps(1))
    assert [tuple(x.shape) for x in outs] == [(2, 8, 16, 24), (2, 8, 8, 12), (2, 8, 4, 6), (2, 8, 2, 3), (2, 8, 1, 2)]
    assert torch.equal(outs[4], outs[3][:, :, ::2, ::2])
    sum(x.square().sum() for x in outs).backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_simple_fpn_takes_the_given_scales():
    neck = SimpleFPN(16, 8, scales=(2, 0.5))
    assert [tuple(x.shape[2:]) for x in neck(maps(1))] == [(8, 12), (2, 3)]


def test_simple_fpn_normalises_channels_without_biases_before():
    neck = SimpleFPN(16, 8, scales=(1, 0.5))
    x = maps(1)[0]
    same, half = neck([x])
    conv1, norm1, conv2, norm2 = neck.levels[0]
    assert conv1.bias is None
    assert conv2.bias is None
    y = F.conv2d(x, conv1.weight)
    y = F.layer_norm(y.permute(0, 2, 3, 1), (8,), eps=1e-6).permute(0, 3, 1, 2)
    y = F.conv2d(y, conv2.weight, padding=1)
    y = F.layer_norm(y.permute(0, 2, 3, 1), (8,), eps=1e-6).permute(0, 3, 1, 2)
    torch.testing.assert_close(same, y)
    pooled = x.unflatten(2, (2, 2)).unflatten(4, (3, 2)).amax(dim=(3, 5))
    torch.testing.assert_close(neck.levels[1][1](pooled), F.conv2d(pooled, neck.levels[1][1].weight))
    torch.testing.assert_close(half, neck.levels[1][1:](pooled))


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(scales=(3,)), 'scales of SimpleFPN'),
        (dict(num_outs=3), 'num_outs 3'),
        (dict(in_channels=18), 'multiple of 4'),
    ],
)
def test_simple_fpn_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        SimpleFPN(**{**dict(in_channels=16, out_channels=8), **options})


def test_simple_fpn_takes_one_map():
    with pytest.raises(ValueError, match='one map, got 2'):
        SimpleFPN(16, 8)(maps(2))


def test_four_scales():
    neck = FourScaleNeck(16)
    inputs = maps(4)
    outs = neck(inputs)
    assert [tuple(x.shape) for x in outs] == [(2, 16, 16, 24), (2, 16, 8, 12), (2, 16, 4, 6), (2, 16, 2, 3)]
    assert outs[2] is inputs[2]
    assert torch.equal(outs[3], inputs[3].unflatten(2, (2, 2)).unflatten(4, (3, 2)).amax(dim=(3, 5)))
    torch.testing.assert_close(
        outs[1], F.conv_transpose2d(inputs[1], neck.levels[1].weight, neck.levels[1].bias, stride=2)
    )
    sum(x.square().sum() for x in outs).backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_four_scales_take_other_norms_and_four_maps():
    neck = FourScaleNeck(16, norm_cfg=dict(type='GN', num_groups=4))
    assert isinstance(neck.levels[0][1], torch.nn.GroupNorm)
    with pytest.raises(ValueError, match='four maps, got 1'):
        neck(maps(1))


def pyramid(strides: tuple, size: int = 64) -> list:
    return [torch.rand(2, 4 * (i + 1), size // stride, 2 * size // stride) for i, stride in enumerate(strides)]


@pytest.mark.parametrize(
    'strides,kinds',
    [
        ((8, 16, 16, 16), ['ConvTranspose2d', 'ConvTranspose2d', 'Identity', 'MaxPool2d']),  # VOLO
        ((4, 8, 8, 8), ['ConvTranspose2d', 'ConvTranspose2d', 'Identity', 'MaxPool2d']),  # nano VOLO
        ((8, 8, 8, 8), ['Sequential', 'ConvTranspose2d', 'Identity', 'MaxPool2d']),  # nano ViT
        ((4, 8, 16, 32), ['Identity'] * 4),
    ],
)
def test_four_scales_of_maps_with_other_strides_and_channels(strides, kinds):
    neck = FourScaleNeck([4, 8, 12, 16], strides=strides)
    assert [type(level).__name__ for level in neck.levels] == kinds
    outs = neck(pyramid(strides))
    stride = strides[2]
    assert [256 // x.shape[2] // 4 for x in outs] == [stride // 4, stride // 2, stride, 2 * stride]
    assert [x.shape[1] for x in outs] == [4, 8, 12, 16]


def test_four_scales_of_volo_without_rounding():
    """Each output is the map itself, one transposed convolution or one pooling of it."""
    neck, inputs = FourScaleNeck([4, 8, 12, 16], strides=(8, 16, 16, 16)), pyramid((8, 16, 16, 16))
    outs = neck(inputs)
    for i in (0, 1):
        torch.testing.assert_close(
            outs[i], F.conv_transpose2d(inputs[i], neck.levels[i].weight, neck.levels[i].bias, stride=2)
        )
    assert outs[2] is inputs[2]


def test_four_scales_from_a_coarser_level():
    channels = [4, 8, 12, 16]
    whole, later = FourScaleNeck(channels), FourScaleNeck(channels, start_level=2)
    maps = pyramid((16, 16, 16, 16))
    assert [tuple(x.shape[2:]) for x in later(maps)] == [tuple(x.shape[2:]) for x in whole(maps)[2:]]
    assert list(later.parameters()) == []


def test_three_maps_give_the_first_three_levels():
    neck = FourScaleNeck([4, 8, 12], strides=(8, 16, 16))
    inputs = pyramid((8, 16, 16))
    assert [64 // x.shape[2] for x in neck(inputs)] == [4, 8, 16]
    with pytest.raises(ValueError, match='three maps, got 4: set three out_indices'):
        neck(pyramid((8, 16, 16, 16)))


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(strides=(16, 16)), 'strides of FourScaleNeck must have four'),
        (dict(embed_dims=[16, 16]), 'embed_dims of FourScaleNeck must have four'),
        (dict(strides=(32, 16, 16, 16)), r'strides \(32, 16, 16, 16\).*outputs have 4, 8, 16, 32'),
        (dict(strides=(8, 12, 16, 16)), r'strides \(8, 12, 16, 16\)'),
        (dict(start_level=4), 'start_level of FourScaleNeck must be from 0 to 3, got 4'),
    ],
)
def test_wrong_strides_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FourScaleNeck(**{**dict(embed_dims=16), **options})


def test_maps_of_other_strides_are_refused():
    with pytest.raises(ValueError, match=r'strides=\(16, 16, 16, 16\), but gets maps of 8x16, 4x8, 4x8, 4x8'):
        FourScaleNeck([4, 8, 12, 16])(pyramid((8, 16, 16, 16)))
    with pytest.raises(ValueError, match='set strides'):
        FourScaleNeck([4, 8, 12, 16], strides=(8, 16, 16, 16))(pyramid((16, 16, 16, 16)))
    odd = [torch.rand(1, 4, *size) for size in ((9, 13), (4, 7), (5, 6), (5, 7))]
    FourScaleNeck(4, strides=(8, 16, 16, 16))(odd)


@pytest.mark.parametrize(
    'cfg', [dict(type='addp_mm.SimpleFPN', in_channels=16), dict(type='addp_mm.FourScaleNeck', embed_dims=16)]
)
def test_built_from_a_config(cfg):
    assert type(MODELS.build(cfg)).__name__ == cfg['type'].split('.')[1]
