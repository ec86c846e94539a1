# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmengine's ``type='Pretrained'`` is refused on the components of this package."""

import pytest
import torch
from mmdet.registry import MODELS as DETECTORS
from mmengine.model import PretrainedInit
from mmengine.registry import DefaultScope

from addp_mm.errors import ConfigError
from addp_mm.models.backbones import ADDPViT
from addp_mm.models.necks import SimpleFPN

ARCH = dict(embed_dims=16, num_layers=1, num_heads=2)


class Subclass(ADDPViT):
    pass


@pytest.mark.parametrize('kind', ['Pretrained', PretrainedInit])
@pytest.mark.parametrize('as_list', [False, True])
def test_the_message_names_the_type_to_write(kind, as_list):
    init_cfg = dict(type=kind, checkpoint='nowhere.pth')
    module = Subclass(ARCH, img_size=16, patch_size=8, init_cfg=[init_cfg] if as_list else init_cfg)
    with pytest.raises(ConfigError, match=r"Subclass has type='Pretrained'.*Write type='addp_mm\.Pretrained'"):
        module.init_weights()


def test_other_initialisers_still_work():
    neck = SimpleFPN(in_channels=16, out_channels=8, init_cfg=dict(type='Constant', layer='Conv2d', val=2.0))
    neck.init_weights()
    assert (neck.levels[2][0].weight == 2).all()


def test_a_detector_with_this_backbone_is_refused(tmp_path):
    torch.save(ADDPViT(ARCH, img_size=32, patch_size=8).state_dict(), tmp_path / 'vit.pth')
    backbone = dict(
        type='addp_mm.ADDPViT',
        arch=ARCH,
        img_size=32,
        patch_size=8,
        with_cls_token=False,
        out_type='featmap',
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'vit.pth')),
    )
    config = dict(
        type='RetinaNet',
        backbone=backbone,
        neck=dict(type='addp_mm.SimpleFPN', in_channels=16, out_channels=8, num_outs=5),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=2,
            in_channels=8,
            feat_channels=8,
            stacked_convs=1,
            anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], strides=[2, 4, 8, 16, 32], scales=[4.0]),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        ),
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        with pytest.raises(ConfigError, match='init_cfg of ADDPViT'):
            DETECTORS.build(config).init_weights()
        backbone['init_cfg']['type'] = 'addp_mm.Pretrained'
        DETECTORS.build(config).init_weights()
