# Copyright (c) addp_mm contributors. Apache-2.0.
"""TimmBackbone in training: recomputation, frozen stages, layer decay, and the three packages."""

import importlib

import pytest
import torch
from helpers.recipes import load_recipe
from helpers.timm_families import FAMILIES, MAXVIT, SWIN, VIT, randomise, use_small_mvit
from helpers.tiny_detection import detection_batch
from mmengine.registry import DefaultScope
from timm.optim import param_groups_layer_decay
from torch import nn

from addp_mm.engine.optimizers import LayerDecayOptimWrapperConstructor
from addp_mm.models.backbones import ADDPViT, TimmBackbone
from addp_mm.models.layers import OptionError
from addp_mm.registry import MODELS


@pytest.fixture(autouse=True)
def small_mvit(monkeypatch):
    use_small_mvit(monkeypatch)


def backbone_of(family, seed=0, **options):
    torch.manual_seed(seed)
    backbone = TimmBackbone(family.model, model_kwargs=family.kwargs, **options)
    randomise(backbone)
    return backbone


def gradients(backbone, images):
    """Gradients of one loss over several forward passes, with images of other sizes in between."""
    outs = [out for image in images for out in backbone(image)]
    sum((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in outs).backward()
    return {name: parameter.grad for name, parameter in backbone.named_parameters()}


@pytest.mark.parametrize('name', ['augreg', 'beitv2', 'dinov3', 'swin', 'convnext', 'mvitv2', 'hiera', 'volo'])
def test_recomputation_gives_the_same_gradients(name):
    family = FAMILIES[name]
    images = [torch.rand(1, 3, 64, 96), torch.rand(1, 3, 96, 64)]
    wanted = gradients(backbone_of(family), images)
    found = gradients(backbone_of(family, with_cp=True, pretrained=False), images)
    assert all(grad is not None for grad in wanted.values())
    for key, grad in wanted.items():
        torch.testing.assert_close(found[key], grad, msg=key)


def test_recomputation_runs_blocks_twice():
    backbone = backbone_of(FAMILIES['augreg'], with_cp=True)
    calls = []
    backbone.timm_model.blocks[1].register_forward_pre_hook(lambda *_: calls.append(1))
    gradients(backbone, [torch.rand(1, 3, 32, 32)])
    assert len(calls) == 2


@pytest.mark.parametrize(
    'name, stages, frozen, trained',
    [
        ('augreg', 0, ('cls_token', 'pos_embed', 'patch_embed'), ('blocks.0', 'blocks.1', 'norm')),
        ('augreg', 1, ('cls_token', 'pos_embed', 'patch_embed', 'blocks.0'), ('blocks.1', 'norm')),
        ('resnet', 1, ('conv1', 'bn1', 'layer1'), ('layer2', 'layer3', 'layer4')),
        ('swin', 2, ('patch_embed', 'layers.0', 'layers.1'), ('layers.2', 'layers.3', 'norm')),
        ('convnext', 1, ('stem', 'stages.0'), ('stages.1', 'stages.2', 'stages.3')),
        ('volo', 1, ('pos_embed', 'patch_embed', 'network.0'), ('network.1', 'network.2', 'network.4', 'norm')),
        ('hiera', 2, ('pos_embed', 'patch_embed', 'blocks.0', 'blocks.1'), ('blocks.2', 'blocks.3')),
        ('mvitv2', 1, ('patch_embed', 'stages.0'), ('stages.1', 'stages.3', 'norm')),
        ('maxvit', 1, ('stem', 'stages.0'), ('stages.1', 'stages.3')),
    ],
)
def test_frozen_stages(name, stages, frozen, trained):
    backbone = backbone_of(FAMILIES[name], frozen_stages=stages, drop_path_rate=0.1).train()
    model = backbone.timm_model
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=1e-3)
    sum(out.mean() for out in backbone(torch.rand(2, 3, 64, 64))).backward()
    optimizer.step()
    for key, value in backbone.state_dict().items():
        if key.removeprefix('timm_model.').startswith(tuple(f'{part}.' for part in frozen) + frozen):
            assert torch.equal(value, before[key]), key
    names = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    assert {key for key, trains in names.items() if not trains} == {
        key for key in names if key.split('.')[0] in frozen or key.startswith(tuple(f'{part}.' for part in frozen))
    }
    modules = dict(model.named_modules())
    for part in frozen:
        assert not any(module.training for key, module in modules.items() if f'{key}.'.startswith(f'{part}.')), part
    assert all(model.get_submodule(part).training for part in trained)


def test_everything_frozen_and_wrong_numbers():
    for name, number in (('augreg', 2), ('resnet', 4), ('volo', 4)):
        backbone = backbone_of(FAMILIES[name], frozen_stages=number).train()
        assert not any(parameter.requires_grad for parameter in backbone.parameters())
        assert not any(module.training for module in backbone.timm_model.modules())
        with pytest.raises(OptionError, match=rf'in \[-1, {number}\]'):
            backbone_of(FAMILIES[name], frozen_stages=number + 1)
    shorter = backbone_of(FAMILIES['resnet'], frozen_stages=3, out_indices=(1, 2))
    assert not any(parameter.requires_grad for parameter in shorter.parameters())


@pytest.mark.parametrize('name', FAMILIES)
def test_layer_decay_is_timms(name):
    family = FAMILIES[name]
    backbone = backbone_of(family)
    # timm gives the head a scale of 1; one is put back here, because TimmBackbone has none
    backbone.timm_model.head = nn.Linear(2, 2)
    groups = param_groups_layer_decay(backbone.timm_model, layer_decay=0.5)
    scales = {id(parameter): group['lr_scale'] for group in groups for parameter in group['params']}
    for key, parameter in backbone.named_parameters():
        depth, number = backbone.get_layer_depth(f'backbone.{key}', 'backbone.')
        assert 0.5 ** (number - 1 - depth) == pytest.approx(scales[id(parameter)]), key
    assert backbone.get_layer_depth('backbone.timm_model.patch_embed.x', 'backbone.')[0] in (0, number - 1)
    assert backbone.get_layer_depth('neck.conv.weight', 'backbone.') == (number - 1, number)


def test_names_that_adapters_add_have_the_depth_of_their_layer():
    backbone = backbone_of(FAMILIES['augreg'])
    for name in ('blocks.1.attn.qkv.base_layer.weight', 'blocks.1.attn.qkv.lora_A.default.weight'):
        assert backbone.get_layer_depth(f'timm_model.{name}') == backbone.get_layer_depth(
            'timm_model.blocks.1.norm1.bias'
        )


def test_layer_decay_in_a_model():
    model = nn.Module()
    model.backbone, model.neck = backbone_of(FAMILIES['swin']), nn.Linear(2, 2)
    build = LayerDecayOptimWrapperConstructor(dict(optimizer=dict(type='AdamW', lr=1.0)), dict(layer_decay_rate=0.5))
    scales = {name: group['lr'] for group in build(model).optimizer.param_groups for name in group['param_names']}
    assert scales['neck.weight'] == 1
    assert (
        scales['backbone.timm_model.norm.weight'] == scales['backbone.timm_model.layers.3.blocks.1.norm1.bias'] == 0.5
    )
    assert scales['backbone.timm_model.patch_embed.proj.weight'] == 0.5 ** (1 + 6)


def test_channels_and_strides_of_addp_vit():
    backbone = ADDPViT('nano', img_size=64, patch_size=8, out_indices=(1, 3, -1))
    assert (backbone.out_channels, backbone.out_strides) == ((128,) * 3, (8,) * 3)


def test_several_input_channels():
    backbone = backbone_of(FAMILIES['resnet'], in_channels=5)
    assert backbone(torch.rand(2, 5, 64, 64))[0].shape == (2, 256, 16, 16)


def classifier():
    backbone = dict(
        type='addp_mm.TimmBackbone',
        model='vit_small_patch16_dinov3',
        model_kwargs=dict(VIT, embed_dim=64),
        drop_path_rate=0.1,
    )
    return dict(
        type='ImageClassifier',
        backbone=backbone,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=64),
    )


def detector():
    model = load_recipe('_base_/models/mask-rcnn_addp-vit-nano-p8.py').model
    model.backbone = dict(
        type='addp_mm.TimmBackbone',
        model='swin_tiny_patch4_window7_224',
        model_kwargs=SWIN,
        out_indices=(0, 1, 2),
        frozen_stages=1,
    )
    model.neck = dict(type='FPN', in_channels=[16, 32, 64], out_channels=64, num_outs=3)
    return model


def segmentor():
    maps = dict(in_channels=[32] * 4, in_index=[0, 1, 2, 3], channels=16, num_classes=5, norm_cfg=dict(type='BN'))
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size=(75, 107)),
        backbone=dict(type='addp_mm.TimmBackbone', model='maxvit_tiny_tf_224', model_kwargs=MAXVIT),
        decode_head=dict(type='UPerHead', pool_scales=(1, 2), **maps),
        test_cfg=dict(mode='whole'),
    )


@pytest.mark.parametrize('scope, make', [('mmpretrain', classifier), ('mmdet', detector), ('mmseg', segmentor)])
def test_in_the_three_packages(scope, make):
    importlib.import_module(f'{scope}.models')
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(make())
        model.init_weights()
        if scope == 'mmpretrain':
            from mmpretrain.structures import DataSample

            losses = model.train()(torch.rand(2, 3, 50, 70), [DataSample().set_gt_label(1)] * 2, mode='loss')
            assert model.backbone.get_layer_depth('backbone.timm_model.blocks.0.x', 'backbone.')[1] == 4
        elif scope == 'mmdet':
            losses = model.train()(**model.data_preprocessor(detection_batch(), True), mode='loss')
        else:
            from mmengine.structures import PixelData
            from mmseg.structures import SegDataSample

            sample = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 5, (1, 75, 107))))
            losses = model.train()(torch.rand(2, 3, 75, 107), [sample] * 2, mode='loss')
        loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in model.backbone.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, name
