# Copyright (c) addp_mm contributors. Apache-2.0.
"""LoRA adapters of TimmBackbone in models of several families."""

import pytest
import timm
import torch
from torch import nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.models.backbones import VOLO, TimmBackbone
from addp_mm.models.layers import OptionError, lora, lora_weights
from addp_mm.models.pretrained import Pretrained

VIT = dict(embed_dim=16, depth=3, num_heads=2)
FAMILIES = {
    'vit_tiny_patch16_224': (VIT, ('qkv', 'proj'), 3 * 2),
    # the bias of its qkv is a parameter of the attention, which reads the weight of the layer
    'vit_small_patch16_dinov3_qkvb': (dict(VIT, embed_dim=24), ('qkv', 'fc2'), 3 * 2),
    'beitv2_base_patch16_224': (VIT, ('qkv',), 3),
    'swin_tiny_patch4_window7_224': (dict(embed_dim=8, depths=(1, 2, 1, 1), num_heads=(1, 1, 2, 2)), ('qkv',), 5),
    'convnext_tiny': (dict(depths=(1, 2, 1, 1), dims=(8, 8, 16, 16)), ('fc1', 'fc2'), 5 * 2),
    'hiera_tiny_224': (dict(embed_dim=16, stages=(1, 2, 1, 1)), ('attn.qkv',), 5),
    'resnet18': (dict(channels=(8, 8, 16, 16)), ('conv2',), 8),
}


def build(name: str, **options) -> TimmBackbone:
    return TimmBackbone(name, model_kwargs=FAMILIES[name][0], **options)


@pytest.mark.parametrize('name', FAMILIES)
def test_adapters_are_trained_and_merged(name):
    """At first the outputs are those of the plain model; merged, those of the adapted one."""
    _, targets, count = FAMILIES[name]
    plain, backbone = build(name).eval(), build(name, lora=dict(rank=2, targets=targets)).eval()
    for module in plain.modules():  # layer scale and the last norm of a residual branch start at about 0
        for key, parameter in module.named_parameters(recurse=False):
            if key.startswith('gamma') or isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(parameter)
    backbone.load_state_dict(plain.state_dict(), strict=False)
    size = 224 if 'hiera' in name else 64
    image = torch.rand(2, 3, size, size)
    before = plain(image)
    for one, other in zip(before, backbone(image), strict=True):
        assert (one - other).abs().max() < 1e-5 * one.abs().max()
    assert len(lora.adapted_layers(backbone)) == count
    adapters = {key: value for key, value in backbone.named_parameters() if lora_weights.is_adapter(key)}
    assert {key for key, value in backbone.named_parameters() if value.requires_grad} == set(adapters)
    for parameter in adapters.values():
        nn.init.normal_(parameter, std=0.5)
    sum(x.square().sum() for x in backbone.train()(image)).backward()
    assert [key for key, value in adapters.items() if value.grad is None or not value.grad.any()] == []
    after = backbone.eval()(image)
    plain.load_state_dict(lora_weights.merge_adapters(backbone.state_dict()))
    for merged, adapted, old in zip(plain(image), after, before, strict=True):
        assert (merged - adapted).abs().max() < 1e-5 * adapted.abs().max()
        assert (adapted - old).abs().max() > 1e-3
    depths = [backbone.get_layer_depth(f'backbone.{key}', 'backbone.')[0] for key in adapters]
    assert depths == sorted(depths)
    assert depths[0] == 1


def test_stages_of_a_hierarchical_model_are_chosen_by_number():
    name = 'swin_tiny_patch4_window7_224'
    backbone = build(name, lora=dict(layers=(1, -1), targets='attn.qkv'))
    stages = {layer.split('.')[2] for layer in lora.adapted_layers(backbone)}
    assert stages == {'1', '3'}
    with pytest.raises(OptionError, match=r'lora\.layers \(2,\) must be numbers of blocks in \[-2, 1\]'):
        build(name, out_indices=(0, 1), lora=dict(layers=2))


def test_volo_takes_adapters_too():
    backbone = VOLO('nano', img_size=64, lora=dict(rank=2, targets=('attn.proj', 'qkv'), layers=(0, 2)))
    layers = lora.adapted_layers(backbone)
    assert {layer.split('.')[2] for layer in layers if layer.endswith('attn.proj')} == {'0', '3'}
    plain = VOLO('nano', img_size=64).eval()
    backbone.load_state_dict(plain.state_dict(), strict=False)
    image = torch.rand(1, 3, 64, 64)
    assert all(map(torch.equal, backbone.eval()(image), plain(image)))


def test_statistics_of_frozen_batch_norms_stay():
    backbone = build('resnet18', lora=dict(rank=1, targets='conv1', trainable='layer4')).train()
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone(torch.rand(2, 3, 64, 64))
    changed = {name for name, value in backbone.named_buffers() if not torch.equal(value, before[name])}
    assert changed
    assert all('layer4' in name for name in changed)


def test_weights_of_timm_and_of_a_training_load(tmp_path):
    """From timm's names, at another size, and from a checkpoint with adapters."""
    name = 'vit_tiny_patch16_224'
    theirs = timm.create_model(name, **VIT, img_size=96)
    torch.save(theirs.state_dict(), tmp_path / 'timm.pth')
    backbone = build(name, lora=dict(rank=2))
    Pretrained(str(tmp_path / 'timm.pth'))(backbone)
    layer = backbone.timm_model.blocks[1].attn.qkv
    assert torch.equal(layer.base_layer.weight, theirs.blocks[1].attn.qkv.weight)
    nn.init.normal_(layer.lora_B.default.weight)
    torch.save(backbone.state_dict(), tmp_path / 'lora.pth')
    again = build(name, lora=dict(rank=2))
    Pretrained(str(tmp_path / 'lora.pth'), strict=True)(again)
    assert all(map(torch.equal, again.state_dict().values(), backbone.state_dict().values()))
    with pytest.raises(CheckpointError, match=r'lora\.pth: the checkpoint has LoRA adapters that the backbone lacks'):
        Pretrained(str(tmp_path / 'lora.pth'))(build(name))


def test_frozen_stages_contradict_adapters():
    with pytest.raises(OptionError, match='lora freezes the backbone'):
        build('vit_tiny_patch16_224', lora={}, frozen_stages=0)
