# Copyright (c) addp_mm contributors. Apache-2.0.
"""Logits at each position, against what the whole classifier computes."""

import importlib

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

import addp_mm  # noqa: F401  # before the packages, which need its mmcv._ext
from addp_mm.config.config_file import ConfigError
from addp_mm.label_maps.config_classifier import ConfigClassifier
from addp_mm.label_maps.timm_classifier import TimmClassifier
from addp_mm.registry import MODELS

VIT = dict(embed_dims=16, num_layers=2, num_heads=2)
LINEAR = dict(type='LinearClsHead', num_classes=5)
GAP = dict(type='GlobalAveragePooling')
SWIN = dict(type='SwinTransformer', arch=dict(embed_dims=8, depths=[1] * 4, num_heads=[1, 1, 2, 2]), pad_small_map=True)
CONVNEXT = dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 16]))
MMPRETRAIN_VIT = dict(
    type='VisionTransformer',
    arch=dict(VIT, feedforward_channels=32),
    img_size=64,
    patch_size=16,
    out_type='avg_featmap',
)


def image_classifier(backbone: dict, head: dict, neck: dict | None = None):
    importlib.import_module('mmpretrain.models')
    preprocessor = dict(num_classes=5, mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0], to_rgb=True)
    cfg = dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head, data_preprocessor=preprocessor)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(Config(dict(model=cfg)).model)
        model.init_weights()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def images(size: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(0)).float()


def whole_logits(model, rgb: torch.Tensor) -> torch.Tensor:
    """Logits of the classifier as it is tested, from BGR images."""
    return model(model.data_preprocessor(dict(inputs=rgb.flip(1)), False)['inputs'])


@pytest.mark.parametrize(
    'backbone, neck, channels, size',
    [
        (dict(type='ResNet', depth=18, stem_channels=8, base_channels=8), GAP, 64, 32),
        (CONVNEXT, None, 16, 32),
        (SWIN, GAP, 64, 32),
        (dict(type='addp_mm.ADDPViT', arch=VIT, img_size=16, patch_size=16, out_type='avg_featmap'), None, 16, 16),
        (MMPRETRAIN_VIT, None, 16, 16),
        (dict(type='addp_mm.TimmBackbone', model='test_vit', out_type='avg_featmap'), None, 64, 16),
        (dict(type='addp_mm.TimmBackbone', model='test_resnet', out_indices=4), GAP, 96, 32),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else '',
)
@torch.no_grad()
def test_one_position_has_the_logits_of_the_image(backbone, neck, channels, size):
    """At the size of the largest stride there is one position: pooling changes nothing."""
    model = image_classifier(backbone, dict(LINEAR, in_channels=channels), neck)
    expected = whole_logits(model, images(size))
    logits = ConfigClassifier('tiny', model, size)(images(size))
    assert logits.shape == (2, 5, 1, 1)
    assert expected.std() > 0.01
    torch.testing.assert_close(logits[:, :, 0, 0], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_positions_of_a_linear_head_have_the_logits_of_the_image_as_their_mean():
    model = image_classifier(
        dict(type='ResNet', depth=18, stem_channels=8, base_channels=8), dict(LINEAR, in_channels=64), GAP
    )
    expected = whole_logits(model, images(96))
    logits = ConfigClassifier('tiny', model, 96)(images(96))
    assert logits.shape == (2, 5, 3, 3)
    assert logits.std((2, 3)).min() > 0
    torch.testing.assert_close(logits.mean((2, 3)), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_class_token_is_replaced_by_each_token():
    backbone = dict(type='addp_mm.ADDPViT', arch=VIT, img_size=32, patch_size=8, out_type='cls_token')
    model = image_classifier(
        backbone, dict(type='VisionTransformerClsHead', num_classes=5, in_channels=16, hidden_dim=8)
    )
    logits = ConfigClassifier('tiny', model, 32)(images(32))
    model.backbone.out_type = 'raw'
    (tokens,) = model.backbone(model.data_preprocessor(dict(inputs=images(32).flip(1)), False)['inputs'])
    expected = torch.stack([model.head((token,)) for token in tokens.unbind(1)], -1)
    torch.testing.assert_close(logits.flatten(2), expected[:, :, 1:])
    model.backbone.out_type = 'cls_token'
    torch.testing.assert_close(whole_logits(model, images(32)), expected[:, :, 0])


@torch.no_grad()
def test_volo_uses_its_layer_for_tokens():
    arch = dict(layers=(1, 1, 1, 1), embed_dims=(8, 16), num_heads=(1, 2), stem_channels=8)
    backbone = dict(type='addp_mm.VOLO', arch=arch, img_size=64, out_type='raw')
    model = image_classifier(backbone, dict(type='addp_mm.VOLOHead', num_classes=5, in_channels=16))
    logits = ConfigClassifier('tiny', model, 64)(images(64))
    assert logits.shape == (2, 5, 4, 4)
    tokens = model.backbone(model.data_preprocessor(dict(inputs=images(64).flip(1)), False)['inputs'])[0]
    expected = model.head.fc(tokens[:, 0]) + 0.5 * logits.amax((2, 3))
    torch.testing.assert_close(whole_logits(model, images(64)), expected)


@torch.no_grad()
def test_volo_with_a_linear_head_applies_it_to_each_token():
    arch = dict(layers=(1, 1, 1, 1), embed_dims=(8, 16), num_heads=(1, 2), stem_channels=8)
    backbone = dict(type='addp_mm.VOLO', arch=arch, img_size=64, out_type='cls_token')
    model = image_classifier(backbone, dict(LINEAR, in_channels=16))
    logits = ConfigClassifier('tiny', model, 64)(images(64))
    tokens = model.backbone(model.data_preprocessor(dict(inputs=images(64).flip(1)), False)['inputs'])[0]
    expected = model.head.fc(tokens[:, 1:]).transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize(
    'name, kwargs, size',
    [
        ('test_resnet', {}, 32),
        ('test_convnext', {}, 32),
        ('test_vit', dict(img_size=16), 16),
        ('vit_tiny_patch16_224', dict(img_size=16, embed_dim=16, depth=1, num_heads=2, global_pool='avg'), 16),
        (
            'swin_tiny_patch4_window7_224',
            dict(img_size=32, embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)),
            32,
        ),
    ],
)
@torch.no_grad()
def test_one_position_of_timm_has_the_logits_of_the_image(name, kwargs, size):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **kwargs).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    classifier = TimmClassifier(name, model)
    logits = classifier(images(size))
    assert logits.shape == (2, 5, 1, 1)
    if getattr(model, 'global_pool', '') == 'token':
        tokens = model.forward_features((images(size) - classifier.mean) / classifier.std)
        expected = model.forward_head(tokens[:, 1:])
    else:
        expected = model((images(size) - classifier.mean) / classifier.std)
    torch.testing.assert_close(logits[:, :, 0, 0], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_timm_volo_uses_its_layer_for_tokens():
    torch.manual_seed(0)
    # the name's own sizes cannot be changed
    model = timm.models.volo.VOLO((1, 1, 1, 1), 64, 3, 5, embed_dims=(8, 16, 16, 16), num_heads=(1, 2, 2, 2)).eval()
    model.pretrained_cfg = timm.get_pretrained_cfg('volo_d1_224').to_dict()
    classifier = TimmClassifier('volo_d1_224', model)
    logits = classifier(images(64))
    inputs = (images(64) - classifier.mean) / classifier.std
    cls_logits = model.head(model.forward_features(inputs)[:, 0])
    torch.testing.assert_close(model(inputs), cls_logits + 0.5 * logits.amax((2, 3)))


def test_an_image_that_does_not_fit_is_refused_in_one_line():
    model = timm.create_model('test_vit', num_classes=5).eval()
    with pytest.raises(ConfigError, match='timm:test_vit gives no logits at the positions of images of 50 px'):
        TimmClassifier('test_vit', model)(images(50))


def test_the_images_are_normalised_on_the_device_of_the_model():
    model = image_classifier(CONVNEXT, dict(LINEAR, in_channels=16))
    classifier = ConfigClassifier('tiny', model, 32).to('meta')
    assert classifier(torch.zeros(1, 3, 32, 32, device='meta')).is_meta
