# Copyright (c) addp_mm contributors. Apache-2.0.
"""LoRA adapters of ADDPViT: what is trained, what is loaded, and what is left after merging."""

import copy
import runpy
from pathlib import Path

import pytest
import torch
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.models.backbones import ADDPViT
from addp_mm.models.layers import OptionError, lora, lora_weights
from addp_mm.models.pretrained import Pretrained

EXPORT = Path(__file__).parents[2] / 'tools/model_converters/export_weights.py'
ARCH = dict(embed_dims=16, num_layers=3, num_heads=2)
SIZES = dict(arch=ARCH, img_size=32, patch_size=8, out_type='featmap', out_indices=(0, 2))
LORA = dict(rank=2, alpha=3, layers=(0, -1), targets=('qkv', 'mlp.fc1'))
ADAPTED = ['blocks.0.attn.qkv', 'blocks.0.mlp.fc1', 'blocks.2.attn.qkv', 'blocks.2.mlp.fc1']


def build(**options) -> ADDPViT:
    return ADDPViT(**{**SIZES, 'lora': LORA, **options})


def trained() -> ADDPViT:
    """A backbone whose adapters change its outputs."""
    backbone = build()
    for name, parameter in backbone.named_parameters():
        if lora_weights.is_adapter(name):
            nn.init.normal_(parameter, std=0.3)
    return backbone.eval()


def outputs_differ_by(one, other) -> float:
    image = torch.rand(2, 3, 32, 40)
    return max((x - y).abs().max().item() for x, y in zip(one(image), other(image), strict=True))


def test_only_the_adapters_and_the_named_modules_are_trained():
    backbone = build(lora=dict(LORA, trainable=('norm2', 'pos_embed')))
    expected = {f'{layer}.lora_{side}.default.weight' for layer in ADAPTED for side in 'AB'} | {'pos_embed'}
    expected |= {f'blocks.{i}.norm2.{name}' for i in range(3) for name in ('weight', 'bias')}
    assert {name for name, parameter in backbone.named_parameters() if parameter.requires_grad} == expected
    assert backbone.get_submodule('blocks.0.attn.qkv').lora_A.default.weight.shape == (2, 16)


@pytest.mark.parametrize(
    'options', [{}, dict(with_cp=True), dict(window_size=2, with_cls_token=False, use_rel_pos=True, drop_path_rate=0.0)]
)
def test_every_adapter_gets_a_gradient(options):
    backbone = build(**options).train()
    for name, parameter in backbone.named_parameters():
        if lora_weights.is_adapter(name):
            nn.init.normal_(parameter)
    sum(x.sum() for x in backbone(torch.rand(2, 3, 32, 32))).backward()
    idle = [n for n, p in backbone.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert idle == []
    assert all(p.grad is None for p in backbone.parameters() if not p.requires_grad)


def test_an_adapted_layer_adds_the_scaled_product_of_two_matrices():
    layer = trained().blocks[0].attn.qkv
    x = torch.rand(5, 16)
    plain = x @ layer.base_layer.weight.T + layer.base_layer.bias
    change = x @ (layer.lora_B.default.weight @ layer.lora_A.default.weight).T
    torch.testing.assert_close(layer(x), plain + 3 / 2 * change)


def test_the_names_of_the_weights_stay_those_of_the_plain_backbone():
    plain, backbone = ADDPViT(**SIZES), build()
    added = set(backbone.state_dict()) - set(plain.state_dict())
    assert set(plain.state_dict()) <= set(backbone.state_dict())
    assert all(map(lora_weights.is_adapter, added))
    assert len(added) == 2 * len(ADAPTED) + 1
    assert get_state_dict(backbone).keys() == backbone.state_dict().keys()
    assert copy.deepcopy(backbone).state_dict().keys() == backbone.state_dict().keys()


def test_plain_weights_of_another_layout_load(tmp_path):
    theirs = VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=2)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    torch.save(theirs.state_dict(), tmp_path / 'timm.pth')
    plain, backbone = ADDPViT(**SIZES), build()
    for one in (plain, backbone):
        Pretrained(str(tmp_path / 'timm.pth'))(one)
    assert torch.equal(backbone.blocks[2].attn.qkv.base_layer.weight, theirs.blocks[2].attn.qkv.weight)
    assert outputs_differ_by(plain.eval(), backbone.eval()) == 0


@pytest.mark.parametrize('load', [nn.Module.load_state_dict, load_state_dict])
def test_a_checkpoint_with_adapters_loads_again(load):
    backbone, again = trained(), build().eval()
    load(again, backbone.state_dict())
    assert outputs_differ_by(backbone, again) == 0


@pytest.mark.parametrize(
    'options, words',
    [
        (None, r'has LoRA adapters that the backbone lacks .*option lora of that training.*addp convert export'),
        (dict(LORA, layers=0), r'lacks \(backbone\.blocks\.2\.attn\.qkv\.lora_A'),
        (dict(LORA, rank=4), r'rank 2 in the checkpoint.*lora\.rank is 4: give lora=dict\(rank=2\)'),
        (dict(LORA, alpha=None), r'alpha=3, and lora\.alpha is 2: give lora=dict\(alpha=3\)'),
    ],
)
def test_adapters_that_the_backbone_lacks_are_refused(options, words, tmp_path):
    weights = {f'backbone.{name}': weight for name, weight in trained().state_dict().items()}
    model = nn.ModuleDict(dict(backbone=build(lora=options)))
    with pytest.raises(OptionError, match=words):
        load_state_dict(model, weights)
    torch.save(dict(state_dict=weights), tmp_path / 'lora.pth')
    with pytest.raises((CheckpointError, OptionError), match=words.replace(r'backbone\.', '')):
        Pretrained(str(tmp_path / 'lora.pth'), prefix='backbone.')(model.backbone)


def test_merging_keeps_the_outputs_and_removes_the_adapters():
    backbone = trained()
    merged = copy.deepcopy(backbone)
    merged.merge_lora()
    assert outputs_differ_by(backbone, merged) < 1e-5
    assert merged.state_dict().keys() == ADDPViT(**SIZES).state_dict().keys()
    assert type(merged.blocks[0].attn.qkv) is nn.Linear
    with pytest.raises(OptionError, match='no LoRA adapters to merge, or they were merged before'):
        merged.merge_lora()


def test_export_writes_merged_weights_for_a_backbone_without_adapters(tmp_path):
    backbone = trained()
    weights = {f'backbone.{name}': weight for name, weight in backbone.state_dict().items()}
    torch.save(dict(state_dict=weights, meta={}), tmp_path / 'iter_1.pth')
    out = tmp_path / 'merged.safetensors'
    runpy.run_path(str(EXPORT))['main']([str(tmp_path / 'iter_1.pth'), str(out), '--prefix', 'backbone.'])
    plain = ADDPViT(**SIZES).eval()
    plain.load_state_dict(load_file(out))
    assert outputs_differ_by(backbone, plain) < 1e-5
    before = ADDPViT(**SIZES).eval()
    before.load_state_dict({name: w for name, w in backbone.state_dict().items() if not lora_weights.is_adapter(name)})
    assert outputs_differ_by(backbone, before) > 1e-2


def test_a_convolution_merges_too():
    holder = nn.Module()
    holder.body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU())
    lora.add_lora(holder, dict(rank=2, targets='0'), 1, lambda name: 0)
    nn.init.normal_(holder.body[0].lora_B.default.weight)
    image = torch.rand(1, 3, 9, 9)
    expected = holder.body(image)
    merged = lora_weights.merge_adapters(holder.state_dict())
    assert merged.keys() == {'body.0.weight', 'body.0.bias'}
    assert merged['body.0.weight'].shape == (4, 3, 3, 3)
    plain = nn.Conv2d(3, 4, 3, stride=2)
    plain.load_state_dict({name.removeprefix('body.0.'): weight for name, weight in merged.items()})
    torch.testing.assert_close(plain(image).relu(), expected)


@pytest.mark.parametrize('lost', ['blocks.0.attn.qkv.weight', 'lora_alpha'])
def test_an_incomplete_checkpoint_is_not_merged(lost):
    weights = trained().state_dict()
    del weights[lost]
    with pytest.raises(OptionError, match=rf'blocks\.0\.attn\.qkv has a LoRA adapter, but .* no {lost}'):
        lora_weights.merge_adapters(weights)


def test_adapters_have_the_depth_of_their_block():
    backbone = build()
    assert backbone.get_layer_depth('backbone.blocks.2.attn.qkv.lora_B.default.weight', 'backbone.') == (3, 5)


def test_it_compiles_as_one_graph():
    backbone = trained()
    compiled = torch.compile(backbone, backend='eager', fullgraph=True)
    assert outputs_differ_by(backbone, compiled) == 0


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(rnk=2), "lora has no option 'rnk'; did you mean rank"),
        (dict(rank=0), r'lora\.rank must be an integer of at least 1, got 0'),
        (dict(rank=True), r'lora\.rank must be an integer of at least 1'),
        (dict(alpha=0), r'lora\.alpha must be positive, got 0'),
        (dict(alpha='8'), r"lora\.alpha must be a number, got '8'"),
        (True, r'lora must be a dict of its options, such as dict\(rank=8\), got True'),
        (dict(dropout=1), r'lora\.dropout must be in \[0, 1\), got 1'),
        (dict(layers=3), r'lora\.layers \(3,\) must be numbers of blocks in \[-3, 2\]'),
        (dict(targets=()), r'lora\.targets must name at least one layer'),
        (dict(targets='qvk'), r"named 'qvk'; did you mean qkv\?; there are fc1, fc2, proj, qkv"),
        (dict(targets='projection'), r"named 'projection'"),  # the embedding is not in a block
        (dict(trainable='nrm1'), r"no module or parameter named 'nrm1'; did you mean norm1"),
    ],
)
def test_a_wrong_option_is_named(options, words):
    with pytest.raises(OptionError, match=words):
        build(lora=options)


def test_frozen_stages_contradict_adapters():
    with pytest.raises(OptionError, match='lora freezes the backbone.*leave frozen_stages at -1'):
        build(frozen_stages=1)


def test_without_peft_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(lora, 'find_spec', lambda name: None)
    with pytest.raises(OptionError, match=r'needs the package peft.*pip install addp_mm\[lora\]'):
        build()
