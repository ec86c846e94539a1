# Copyright (c) addp_mm contributors. Apache-2.0.
"""The necks between each kind of backbone and the heads of stock configs."""

import pytest
import torch
from mmengine.registry import DefaultScope

from addp_mm.config.type_names import type_name
from addp_mm.registry import MODELS
from addp_mm.swap.choose_neck import SCALERS, choose_neck
from addp_mm.swap.expectations import Expected
from addp_mm.swap.feature_maps import FeatureMaps, maps_after
from addp_mm.swap.plan import SwapError

VIT = FeatureMaps((64,) * 4, (16,) * 4)
DINOV2 = FeatureMaps((64,) * 4, (14,) * 4)
NANO = FeatureMaps((64,) * 4, (8,) * 4)
VOLO = FeatureMaps((32, 64, 64, 64), (8, 16, 16, 16))
SWIN = FeatureMaps((24, 48, 96, 192), (4, 8, 16, 32))
RESNET = FeatureMaps((8, 16, 32, 64), (4, 8, 16, 32))

FPN = dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=12, num_outs=5)
FROM_STRIDE_8 = dict(FPN, start_level=1, add_extra_convs='on_output')
PAFPN = dict(type='PAFPN', in_channels=[16, 32, 64], out_channels=12, num_outs=3)
MAPPER = dict(type='ChannelMapper', in_channels=[16, 32, 64], kernel_size=1, out_channels=12, num_outs=4)
LAST = dict(type='ChannelMapper', in_channels=[64], kernel_size=1, out_channels=12, num_outs=1)
YOLOV3 = dict(type='YOLOV3Neck', num_scales=3, in_channels=[64, 32, 16], out_channels=[12, 10, 8])
DYHEAD = dict(type='BFP', in_channels=12, num_levels=5, refine_level=2)
RESCALED = dict(type='mmseg.Feature2Pyramid', embed_dim=64, rescales=[4, 2, 1, 0.5], norm_cfg=dict(type='BN'))
DILATED = dict(
    type='DilatedEncoder',
    in_channels=64,
    out_channels=12,
    block_mid_channels=4,
    num_residual_blocks=1,
    block_dilations=[2],
)


def expected(*necks, backbone: FeatureMaps = RESNET) -> Expected:
    after_first = maps_after(backbone, necks[:1])
    return Expected(backbone, necks, after_first, maps_after(after_first, necks[1:]))


def pyramid(channels: int = 64, **options) -> dict:
    return dict(type='addp_mm.SimpleFPN', in_channels=channels, **options)


FOUR_OF_VIT = dict(type='addp_mm.FourScaleNeck', embed_dims=64)
FOUR_OF_VOLO = dict(type='addp_mm.FourScaleNeck', embed_dims=[32, 64, 64, 64], strides=[8, 16, 16, 16])
THREE_OF_VOLO = dict(type='addp_mm.FourScaleNeck', embed_dims=[32, 64, 64], strides=[8, 16, 16])
ONE_OF_VIT = FeatureMaps((64,), (16,))
LAST_THREE = RESNET.select((1, 2, 3))
# name: maps of the new backbone, what the config has, which maps are returned, the necks
CASES = {
    'vit-fpn': (VIT, expected(FPN), (3,), [pyramid(out_channels=12, num_outs=5)]),
    'vit-from-8': (VIT, expected(FROM_STRIDE_8), (3,), [pyramid(out_channels=12, scales=(2, 1, 0.5), num_outs=5)]),
    'vit-pafpn': (VIT, expected(PAFPN, backbone=LAST_THREE), (3,), [pyramid(out_channels=12, scales=(2, 1, 0.5))]),
    'vit-mapper': (
        VIT,
        expected(MAPPER, backbone=LAST_THREE),
        (3,),
        [pyramid(out_channels=12, scales=(2, 1, 0.5), num_outs=4)],
    ),
    'vit-no-neck': (VIT, expected(), (0, 1, 2, 3), [FOUR_OF_VIT]),
    'vit-second-neck': (VIT, expected(FPN, DYHEAD), (3,), [pyramid(out_channels=12, num_outs=5), DYHEAD]),
    'vit-yolov3': (
        VIT,
        expected(YOLOV3, backbone=LAST_THREE),
        (3,),
        [pyramid(scales=(2, 1, 0.5)), dict(YOLOV3, in_channels=[256, 256, 256])],
    ),
    'vit-yolof': (
        VIT,
        expected(DILATED, backbone=RESNET.select((3,))),
        (3,),
        [pyramid(scales=(0.5,)), dict(DILATED, in_channels=256)],
    ),
    'volo-pyramid-of-a-vit': (VOLO, expected(RESCALED, backbone=VIT), (0, 1, 2, 3), [FOUR_OF_VOLO]),
    'swin-pyramid-of-a-vit': (SWIN, expected(RESCALED, backbone=VIT), (0, 1, 2, 3), []),
    'vit-one-stride': (VIT, expected(backbone=FeatureMaps((8, 8), (16, 16))), (2, 3), []),
    'dinov2-fpn': (DINOV2, expected(FPN), (3,), [pyramid(out_channels=12, num_outs=5)]),
    'nano-fpn': (NANO, expected(FPN), (3,), [pyramid(out_channels=12, scales=(2, 1, 0.5), num_outs=5)]),
    'nano-no-neck': (NANO, expected(), (3,), [pyramid(scales=(2, 1, 0.5), num_outs=4)]),
    'volo-fpn': (VOLO, expected(FPN), (0, 1, 2, 3), [FOUR_OF_VOLO, dict(FPN, in_channels=[32, 64, 64, 64])]),
    'volo-from-8': (
        VOLO,
        expected(FROM_STRIDE_8),
        (0, 1, 2, 3),
        [dict(FOUR_OF_VOLO, start_level=1), dict(FROM_STRIDE_8, in_channels=[64, 64, 64], start_level=0)],
    ),
    'volo-last': (
        VOLO,
        expected(LAST, backbone=RESNET.select((3,))),
        (0, 1, 2, 3),
        [dict(FOUR_OF_VOLO, start_level=3), LAST],
    ),
    'volo-no-neck': (VOLO, expected(), (0, 1, 2, 3), [FOUR_OF_VOLO]),
    'volo-two-strides': (VOLO, expected(backbone=FeatureMaps((8, 16), (8, 16))), (0, 3), []),
    'swin-fpn': (SWIN, expected(FPN), (0, 1, 2, 3), [dict(FPN, in_channels=[24, 48, 96, 192])]),
    'swin-from-8': (SWIN, expected(FROM_STRIDE_8), (0, 1, 2, 3), [dict(FROM_STRIDE_8, in_channels=[24, 48, 96, 192])]),
    'swin-mapper': (SWIN, expected(MAPPER, backbone=LAST_THREE), (1, 2, 3), [dict(MAPPER, in_channels=[48, 96, 192])]),
    'swin-yolov3': (SWIN, expected(YOLOV3, backbone=LAST_THREE), (1, 2, 3), [dict(YOLOV3, in_channels=[192, 96, 48])]),
    'swin-no-neck': (SWIN, expected(), (0, 1, 2, 3), []),
    # configs of this package, whose own backbone is a plain transformer
    'swin-four-scales': (SWIN, expected(FOUR_OF_VIT, backbone=VIT), (0, 1, 2, 3), []),
    'volo-four-scales': (
        VOLO,
        expected(dict(FOUR_OF_VIT, norm_cfg=dict(type='SyncBN')), backbone=VIT),
        (0, 1, 2, 3),
        [dict(FOUR_OF_VOLO, norm_cfg=dict(type='SyncBN'))],
    ),
    'vit-four-scales': (VIT, expected(FOUR_OF_VIT, backbone=VIT), (0, 1, 2, 3), [FOUR_OF_VIT]),
    'swin-four-scales-fpn': (
        SWIN,
        expected(FOUR_OF_VOLO, dict(FPN, in_channels=[32, 64, 64, 64]), backbone=VOLO),
        (0, 1, 2, 3),
        [dict(FPN, in_channels=[24, 48, 96, 192])],
    ),
    'vit-four-scales-fpn': (
        VIT,
        expected(FOUR_OF_VOLO, dict(FPN, in_channels=[32, 64, 64, 64]), backbone=VOLO),
        (0, 1, 2, 3),
        [FOUR_OF_VIT, dict(FPN, in_channels=[64, 64, 64, 64])],
    ),
    'swin-simple-fpn': (
        SWIN,
        expected(pyramid(out_channels=12, num_outs=5), backbone=ONE_OF_VIT),
        (0, 1, 2, 3),
        [dict(FPN, in_channels=[24, 48, 96, 192])],
    ),
    'volo-simple-fpn': (
        VOLO,
        expected(pyramid(out_channels=12, num_outs=5), backbone=ONE_OF_VIT),
        (0, 1, 2, 3),
        [FOUR_OF_VOLO, dict(FPN, in_channels=[32, 64, 64, 64])],
    ),
    'volo-simple-fpn-from-8': (
        VOLO,
        expected(pyramid(out_channels=12, scales=(2, 1, 0.5), num_outs=5), backbone=ONE_OF_VIT),
        (0, 1, 2, 3),
        [dict(FOUR_OF_VOLO, start_level=1), dict(FPN, in_channels=[64, 64, 64])],
    ),
    # the last stage, and not only those before it
    'volo-simple-fpn-of-small-patches': (
        VOLO,
        expected(pyramid(out_channels=12, scales=(2, 1, 0.5)), backbone=FeatureMaps((64,), (8,))),
        (0, 1, 3),
        [THREE_OF_VOLO, dict(type='FPN', in_channels=[32, 64, 64], out_channels=12, num_outs=3)],
    ),
    'volo-fpn-of-three': (
        VOLO,
        expected(dict(FPN, in_channels=[8, 16, 32], num_outs=3), backbone=RESNET.select((0, 1, 2))),
        (0, 1, 3),
        [THREE_OF_VOLO, dict(FPN, in_channels=[32, 64, 64], num_outs=3)],
    ),
    'vit-simple-fpn-of-small-patches': (
        VIT,
        expected(pyramid(out_channels=12, scales=(2, 1, 0.5)), backbone=FeatureMaps((64,), (8,))),
        (3,),
        [pyramid(out_channels=12, scales=(4, 2, 1))],
    ),
    'swin-c4': (SWIN, expected(backbone=RESNET.select((2,))), (2,), []),
}


@pytest.mark.parametrize('name', CASES)
def test_necks_give_the_heads_the_strides_that_they_expect(name):
    maps, wanted, indices, necks = CASES[name]
    choice = choose_neck(maps, wanted)
    assert choice.indices == indices
    assert list(choice.necks) == necks
    assert choice.is_whole
    ratio = 14 / 16 if maps is DINOV2 else 1
    assert choice.maps.strides == pytest.approx([stride * ratio for stride in wanted.heads.strides])
    if wanted.necks and type_name(wanted.necks[-1]['type']) not in SCALERS:
        assert choice.maps.channels == wanted.heads.channels


@pytest.mark.parametrize(
    'name', ['vit-from-8', 'vit-yolov3', 'volo-from-8', 'volo-last', 'volo-fpn-of-three', 'swin-mapper']
)
def test_chosen_necks_run_and_train_whole(name):
    maps, wanted, _, _ = CASES[name]
    choice = choose_neck(maps, wanted)
    x = tuple(
        torch.rand(1, maps.channels[i], int(128 / maps.strides[i]), int(128 / maps.strides[i])) for i in choice.indices
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        necks = [MODELS.build(dict(neck)) for neck in choice.necks]
    for neck in necks:
        x = neck(x)
    assert [tuple(one.shape[1:]) for one in x] == [
        (channels, 128 / stride, 128 / stride)
        for channels, stride in zip(choice.maps.channels, choice.maps.strides, strict=True)
    ]
    sum(one.sum() for one in x).backward()
    assert all(parameter.grad is not None for neck in necks for parameter in neck.parameters())


@pytest.mark.parametrize(
    'maps, wanted, message',
    [
        (SWIN, FeatureMaps((8,) * 4, (16,) * 4), 'want maps of strides 16, 16, 16, 16.* gives strides 4, 8, 16, 32'),
        (VIT, FeatureMaps((8, 8), (4, 4)), 'want maps of strides 4, 4.* gives strides 16, 16, 16, 16'),
        (VOLO, FeatureMaps((8, 8, 8), (2, 4, 8)), 'want maps of strides 2, 4, 8.* gives strides 8, 16, 16, 16'),
        (VIT, FeatureMaps((8, 8, 8), (2, 4, 8)), 'strides 2, 4, 8.*SimpleFPN resizes the stride 16 .* by 4, 2, 1 and'),
    ],
)
def test_strides_that_no_neck_gives_are_refused(maps, wanted, message):
    with pytest.raises(SwapError, match=message):
        choose_neck(maps, expected(backbone=wanted))


def test_channels_of_a_neck_that_its_backbone_does_not_have_are_refused():
    neck = dict(PAFPN, in_channels=[16, 32, 65])
    wanted = Expected(LAST_THREE, (neck,), LAST_THREE, LAST_THREE)
    with pytest.raises(SwapError, match='65'):
        choose_neck(SWIN, wanted)
