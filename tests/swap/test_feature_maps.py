# Copyright (c) addp_mm contributors. Apache-2.0.
"""Channels and strides of backbones before they are built, against those of built ones."""

import pytest
import torch
from mmengine.registry import DefaultScope

from addp_mm.registry import MODELS
from addp_mm.swap.feature_maps import FeatureMaps, feature_maps, maps_after
from addp_mm.swap.plan import SwapError

TINY = dict(embed_dims=16, num_layers=4, num_heads=2)
BACKBONES = [
    dict(type='mmdet.ResNet', depth=18, out_indices=(1, 2, 3)),
    dict(type='mmdet.SwinTransformer', embed_dims=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)),
    dict(type='mmpretrain.VisionTransformer', arch='deit-t', img_size=64, out_type='featmap', out_indices=(3, 11)),
    dict(type='addp_mm.ADDPViT', arch=TINY, img_size=64, out_type='featmap', out_indices=(1, 3)),
    dict(type='addp_mm.ADDPViT', arch=TINY, img_size=56, patch_size=14, out_type='featmap', in_channels=4),
    dict(type='addp_mm.TimmBackbone', model='resnet18'),
    dict(type='addp_mm.VOLO', arch='nano', img_size=64),
]


@pytest.mark.parametrize('backbone', BACKBONES, ids=lambda cfg: cfg['type'])
def test_maps_are_those_of_the_built_backbone(backbone):
    maps = feature_maps(backbone)
    side = 56 if backbone.get('patch_size') == 14 else 64
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        built = MODELS.build(dict(backbone))
    built.eval()
    with torch.no_grad():
        outputs = built(torch.rand(1, backbone.get('in_channels', 3), side, side))
    assert maps.channels == tuple(x.shape[1] for x in outputs)
    assert maps.strides == tuple(side / x.shape[2] for x in outputs)


def test_nothing_is_built_on_a_real_device(monkeypatch):
    devices = set()
    original = torch.nn.Module.register_parameter

    def register(self, name, param):
        devices.update([param.device.type] if param is not None else [])
        original(self, name, param)

    monkeypatch.setattr(torch.nn.Module, 'register_parameter', register)
    feature_maps(BACKBONES[1])
    assert devices == {'meta'}


def test_weights_are_not_loaded():
    weights = dict(type='Pretrained', checkpoint='no/such/file.pth')
    assert feature_maps(dict(BACKBONES[0], init_cfg=weights)) == feature_maps(BACKBONES[0])


def test_a_backbone_of_one_size_gets_images_of_that_size():
    backbone = dict(
        type='mmseg.BEiT', img_size=(64, 64), embed_dims=16, num_layers=2, num_heads=2, out_indices=(1,), qv_bias=True
    )
    assert feature_maps(backbone, scope='mmseg') == FeatureMaps((16,), (16.0,))


def test_necks_without_a_rule_of_shapes_run_on_the_cpu():
    maps = FeatureMaps((8, 8), (8.0, 16.0))
    neck = dict(type='DyHead', in_channels=8, out_channels=16, num_blocks=1)
    assert maps_after(maps, [neck]) == FeatureMaps((16, 16), (8.0, 16.0))


@pytest.mark.parametrize(
    'backbone, message',
    [
        (dict(type='addp_mm.ADDPViT', arch=TINY, img_size=64), 'ADDPViT returns no maps'),
        (dict(type='addp_mm.ADDPViT', arch=TINY, img_size=65), 'ADDPViT cannot be built: img_size 65 x 65'),
        (
            dict(type='addp_mm.TimmBackbone', model='resnet18', out_indices=(7,)),
            'TimmBackbone cannot be built: out_ind',
        ),
    ],
)
def test_backbones_without_maps_are_refused(backbone, message):
    with pytest.raises(SwapError, match=message):
        feature_maps(backbone)
