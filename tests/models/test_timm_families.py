# Copyright (c) addp_mm contributors. Apache-2.0.
"""Maps of TimmBackbone against timm's own, for one model of every family."""

import copy
import math

import pytest
import timm
import torch
import torch.nn.functional as F
from helpers.timm_families import FAMILIES, randomise, timm_model, use_small_mvit
from timm.layers import resample_abs_pos_embed
from torch import nn

from addp_mm.models.backbones import TimmBackbone


@pytest.fixture(autouse=True)
def small_mvit(monkeypatch):
    use_small_mvit(monkeypatch)


def backbone_of(family, **options):
    torch.manual_seed(0)
    backbone = TimmBackbone(family.model, model_kwargs=family.kwargs, **options).eval()
    randomise(backbone)
    return backbone


def image_of(height, width, channels=3):
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(1))


def reference_maps(model, backbone, x):
    """timm's maps, the last one normed: timm cannot do it in Hiera, and norms all maps of VOLO."""
    name = type(model).__name__
    options = dict(indices=list(backbone.out_indices), intermediates_only=True)
    maps = model.forward_intermediates(x, norm=name not in ('Hiera', 'VOLO'), **options)
    if name == 'VOLO':
        maps[-1] = model.norm(maps[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return maps


def weights_at_other_size(family, source, model):
    """Weights as timm would load them into a model of another size."""
    weights = {name: weight.clone() for name, weight in source.state_dict().items()}
    if family.model == 'small_volo':  # timm has no function for these two
        flat = resample_abs_pos_embed(weights['pos_embed'].flatten(1, 2), [6, 10], [14, 14], num_prefix_tokens=0)
        weights['pos_embed'] = flat.unflatten(1, (6, 10))
        return weights
    if family.model == 'hiera_tiny_224':
        weights['pos_embed'] = resample_abs_pos_embed(weights['pos_embed'], [24, 40], [56, 56], num_prefix_tokens=0)
        return weights
    overlay = dict(state_dict=weights, num_classes=0)
    options = {**family.kwargs, **family.at_other, 'img_size': family.other}
    loaded = timm.create_model(family.model, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **options)
    return loaded.state_dict()


@pytest.mark.parametrize('family', FAMILIES.values(), ids=FAMILIES)
@torch.no_grad()
def test_maps_are_timms_own_at_its_size_and_at_another(family):
    backbone = backbone_of(family)
    model = timm_model(family)
    unused = model.load_state_dict(backbone.timm_model.state_dict(), strict=False)
    assert not unused.unexpected_keys
    x = image_of(family.size, family.size)
    maps = backbone(x)
    for ours, theirs in zip(maps, reference_maps(model, backbone, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert backbone.out_strides == family.strides
    assert [tuple(out.shape[1:]) for out in maps] == [
        (channels, family.size // stride, family.size // stride)
        for channels, stride in zip(backbone.out_channels, family.strides, strict=True)
    ]
    x = image_of(*family.other)
    if family.at_other is not None:
        model = timm_model(family, img_size=family.other, **family.at_other)
        model.load_state_dict(weights_at_other_size(family, timm_model_with(family, backbone), model))
    for ours, theirs in zip(backbone(x), reference_maps(model, backbone, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def timm_model_with(family, backbone):
    model = timm_model(family)
    model.load_state_dict(backbone.timm_model.state_dict(), strict=False)
    return model


@pytest.mark.parametrize('name', FAMILIES)
@torch.no_grad()
def test_any_other_size_is_padded_with_zeros_and_cropped(name):
    family = FAMILIES[name]
    backbone = backbone_of(family)
    height, width = 75, 107
    maps = backbone(image_of(height, width))
    padded = F.pad(image_of(height, width), (0, -width % family.multiple, 0, -height % family.multiple))
    for out, whole, channels, stride in zip(maps, backbone(padded), backbone.out_channels, family.strides, strict=True):
        size = math.ceil(height / stride), math.ceil(width / stride)
        assert tuple(out.shape) == (1, channels, *size)
        torch.testing.assert_close(out, whole[..., : size[0], : size[1]], rtol=0, atol=0)


@torch.no_grad()
def test_timm_alone_floors_what_volo_cannot_divide():
    """The reason for the padding: rows and columns at the border would be lost without an error."""
    model = timm.create_model('volo_d1_224', img_size=(64, 96), num_classes=0).eval()
    maps = model.forward_intermediates(image_of(75, 107), intermediates_only=True)
    assert [tuple(out.shape[-2:]) for out in maps] == [(9, 13), (4, 6), (4, 6), (4, 6)]


@pytest.mark.parametrize(
    'model, channels',
    [
        ('volo_d1_384', (192, 384)),
        ('volo_d2_224', (256, 512)),
        ('volo_d3_448', (256, 512)),
        ('volo_d4_224', (384, 768)),
        ('volo_d5_512', (384, 768)),
    ],
)
def test_all_volos(model, channels):
    with torch.device('meta'):
        backbone = TimmBackbone(model)
        maps = backbone(torch.empty(1, 3, 75, 107))
    assert backbone.out_channels == (channels[0], *[channels[1]] * 3)
    assert [tuple(out.shape[-2:]) for out in maps] == [(10, 14), (5, 7), (5, 7), (5, 7)]


@torch.no_grad()
def test_blocks_of_a_plain_transformer_and_the_final_norm():
    family = FAMILIES['dinov2']
    options = dict(indices=[0, 1], intermediates_only=True)
    x = image_of(70, 98)
    backbone = backbone_of(family, out_indices=(0, -1))
    first, last = backbone(x)
    model = timm_model(family, dynamic_img_size=True)
    model.load_state_dict(backbone.timm_model.state_dict())
    torch.testing.assert_close(first, model.forward_intermediates(x, norm=False, **options)[0], rtol=0, atol=0)
    torch.testing.assert_close(last, model.forward_intermediates(x, norm=True, **options)[1])
    without = backbone_of(family, out_indices=(0, -1), final_norm=False)
    without.load_state_dict(backbone.state_dict(), strict=False)
    torch.testing.assert_close(without(x)[1], model.forward_intermediates(x, norm=False, **options)[1])
    assert backbone_of(family, out_indices=0).timm_model.blocks.__len__() == 1


@torch.no_grad()
def test_output_types():
    family = FAMILIES['dinov2']
    x = image_of(75, 98)
    (tokens,) = backbone_of(family, out_type='raw')(x)
    (class_token,) = backbone_of(family, out_type='cls_token')(x)
    (out,) = backbone_of(family)(x)
    (mean,) = backbone_of(family, out_type='avg_featmap')(x)
    assert tokens.shape == (1, 1 + 4 + 6 * 7, 32)
    torch.testing.assert_close(class_token, tokens[:, 0])
    torch.testing.assert_close(out, tokens[:, 5:].transpose(1, 2).unflatten(2, (6, 7)))
    torch.testing.assert_close(mean, out.mean(dim=(2, 3)))


@torch.no_grad()
def test_the_mean_of_a_model_that_norms_it_is_its_classifiers_input():
    family = FAMILIES['beitv2']
    backbone = backbone_of(family, out_type='avg_featmap')
    model = timm_model(family)
    model.load_state_dict(backbone.timm_model.state_dict())
    x = image_of(224, 224)
    torch.testing.assert_close(backbone(x)[0], model(x))


def test_another_size_than_the_fixed_one_is_refused_without_advice_of_that_size():
    """The image may be that of a trial, and not of the training."""
    sizes = dict(img_size=64, embed_dim=32, depth=2, num_heads=2, global_attn_indexes=(1,))
    backbone = TimmBackbone('samvit_base_patch16', model_kwargs=sizes)
    assert backbone(torch.zeros(1, 3, 64, 64))[0].shape[2:] == (4, 4)
    with pytest.raises(ValueError, match=r'made for 64x64 .*, got 96x96: .*img_size=\(HEIGHT, WIDTH\)\) to it'):
        backbone(torch.zeros(1, 3, 96, 96))


@pytest.mark.parametrize('name', ['beitv2', 'mvitv2', 'hiera', 'swin', 'volo'])
@torch.no_grad()
def test_sizes_do_not_leave_a_trace_and_copies_are_independent(name):
    backbone = backbone_of(FAMILIES[name])
    weights = {key: value.clone() for key, value in backbone.state_dict().items()}
    twin = copy.deepcopy(backbone)
    first = backbone(image_of(96, 64))
    backbone(image_of(128, 160))
    for one, again, copied in zip(first, backbone(image_of(96, 64)), twin(image_of(96, 64)), strict=True):
        torch.testing.assert_close(one, again, rtol=0, atol=0)
        torch.testing.assert_close(one, copied, rtol=0, atol=0)
    assert all(torch.equal(value, weights[key]) for key, value in backbone.state_dict().items())


@torch.no_grad()
def test_exported_weights_are_timms():
    """Without the prefix, the names are timm's."""
    family = FAMILIES['swin']
    backbone = backbone_of(family)
    weights = {key.removeprefix('timm_model.'): value for key, value in backbone.state_dict().items()}
    model = timm_model(family)
    model.load_state_dict(weights, strict=True)
    x = image_of(224, 224)
    torch.testing.assert_close(backbone(x)[-1].mean(dim=(2, 3)), model(x))


def test_layers_that_no_map_needs_get_no_gradient_and_are_not_built():
    for family in FAMILIES.values():
        with torch.device('meta'):
            backbone = TimmBackbone(family.model, model_kwargs=family.kwargs)
        assert not any(name.startswith('timm_model.head') for name, _ in backbone.named_parameters())
    backbone = backbone_of(FAMILIES['volo'], out_indices=(0, 1)).train()
    sum(out.sum() for out in backbone(image_of(64, 64))).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert isinstance(backbone.timm_model.head, nn.Identity)
