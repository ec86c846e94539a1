# Copyright (c) addp_mm contributors. Apache-2.0.
"""ADDPViT's options for weights of other methods, and mmpretrain's names."""

import pytest
import torch
from torch import nn

from addp_mm.models.backbones import ADDPViT
from addp_mm.models.backbones.options import arch_settings
from addp_mm.models.layers import OptionError, resize_pos_embed
from addp_mm.models.layers.rel_pos_table import resize_rel_pos_table

TINY = dict(embed_dims=24, num_layers=3, num_heads=3, mlp_ratio=2.0)
ALL = dict(layer_scale_init=0.1, num_register_tokens=2)
BEIT = dict(layer_scale_init=0.1, use_rel_pos_table=True, use_abs_pos=False)


def build(**options) -> ADDPViT:
    """A ViT of three blocks, 32 pixels, patches of 8; tables of relative positions are random."""
    torch.manual_seed(0)
    vit = ADDPViT(**{**dict(arch=TINY, img_size=32, patch_size=8), **options})
    for name, parameter in vit.named_parameters():
        if name.endswith('rel_pos_bias_table'):
            nn.init.normal_(parameter)
    return vit


@pytest.fixture
def image():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    'options,more,fewer',
    [
        (dict(layer_scale_init=1e-5), {f'blocks.{i}.ls{j}.gamma' for i in range(3) for j in (1, 2)}, set()),
        (dict(use_rel_pos_table=True), {f'blocks.{i}.attn.rel_pos_bias_table' for i in range(3)}, set()),
        (dict(num_register_tokens=2), {'register_tokens'}, set()),
        (dict(use_abs_pos=False), set(), {'pos_embed'}),
        (dict(pos_antialias=True), set(), set()),
    ],
)
def test_each_option_has_its_own_keys(options, more, fewer):
    plain, keys = set(build().state_dict()), set(build(**options).state_dict())
    assert keys - plain == more
    assert plain - keys == fewer


@pytest.mark.parametrize('options', [ALL, BEIT])
@pytest.mark.parametrize('out_type', ['cls_token', 'featmap', 'avg_featmap', 'raw'])
def test_every_parameter_is_used_with_and_without_checkpointing(image, options, out_type):
    grads = []
    for with_cp in (False, True):
        vit = build(**options, out_type=out_type, with_cp=with_cp)
        vit(image)[0].square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in vit.parameters())
        grads.append([p.grad for p in vit.parameters()])
    for with_cp, without in zip(*grads, strict=True):
        torch.testing.assert_close(with_cp, without)


def test_layer_scale_scales_both_branches(image):
    vit = build(layer_scale_init=0.0)
    tokens, _ = vit.embed(image)
    vit.out_type, vit.final_norm = 'raw', nn.Identity()
    assert torch.equal(vit(image)[0], tokens)
    assert not torch.equal(build(layer_scale_init=0.5)(image)[0], build()(image)[0])


def test_register_tokens_are_between_class_token_and_map(image):
    vit = build(num_register_tokens=2, out_type='raw').eval()
    tokens, hw = vit.embed(image)
    assert tokens.shape == (2, 1 + 2 + 16, 24)
    assert hw == (4, 4)
    assert torch.equal(tokens[:, 1:3], vit.register_tokens.expand(2, -1, -1))
    assert torch.equal(tokens[:, :1], (vit.cls_token + vit.pos_embed[:, :1]).expand(2, -1, -1))
    assert torch.equal(tokens[:, 3:], vit.patch_embed(image)[0] + vit.pos_embed[:, 1:])
    raw = vit(image)[0]
    vit.out_type = 'featmap'
    assert torch.equal(vit(image)[0].flatten(2).transpose(1, 2), raw[:, 3:])
    alone = build(num_register_tokens=2, with_cls_token=False, out_type='raw')
    assert alone(image)[0].shape == (2, 18, 24)


def test_registers_and_class_tokens_are_dropped_where_there_are_none():
    source = build(num_register_tokens=2).state_dict()
    target = build(with_cls_token=False, out_type='featmap', window_size=2)
    target.load_state_dict(source, strict=True)
    assert torch.equal(target.pos_embed, source['pos_embed'][:, 1:])


@pytest.mark.parametrize('options', [ALL, dict(BEIT, frozen_stages=2)])
def test_freezing(image, options):
    vit = build(**{**options, 'frozen_stages': 2}).train()
    frozen = {name for name, p in vit.named_parameters() if not p.requires_grad}
    start = ('cls_token', 'register_tokens', 'pos_embed', 'patch_embed', 'blocks.0.', 'blocks.1.')
    assert frozen == {name for name, _ in vit.named_parameters() if name.startswith(start)}
    vit(image)[0].sum().backward()


def test_depths_for_layer_decay():
    for options in (ALL, BEIT):
        vit = build(**options)
        depths = {name: vit.get_layer_depth(f'backbone.{name}', 'backbone.') for name, _ in vit.named_parameters()}
        for name, depth in depths.items():
            expected = int(name.split('.')[1]) + 1 if name.startswith('blocks') else 4 * name.startswith('final_norm')
            assert depth == (expected, 5), name


def test_tables_in_windows(image):
    options = dict(BEIT, with_cls_token=False, out_type='featmap')
    vit = build(**options, window_size=3, global_blocks=(1,))
    assert [len(block.attn.rel_pos_bias_table) for block in vit.blocks] == [25, 49, 25]
    assert vit(image)[0].shape == (2, 24, 4, 4)
    whole, full = build(**options, window_size=4), build(**options)
    torch.testing.assert_close(whole(image)[0], full(image)[0])


def test_weights_with_a_table_load_at_another_size_and_into_windows():
    source = build(**BEIT)
    table = source.blocks[0].attn.rel_pos_bias_table
    larger = build(**BEIT, img_size=(48, 64))
    larger.load_state_dict(source.state_dict())
    assert torch.equal(larger.blocks[0].attn.rel_pos_bias_table, resize_rel_pos_table(table, (4, 4), (6, 8)))
    windows = build(**{**BEIT, 'with_cls_token': False}, out_type='featmap', window_size=2)
    windows.load_state_dict(source.state_dict())
    assert torch.equal(windows.blocks[0].attn.rel_pos_bias_table, resize_rel_pos_table(table[:-3], (4, 4), (2, 2)))


def test_a_table_at_another_image_size_is_that_of_a_backbone_of_that_size():
    vit, image = build(**BEIT, out_type='raw').eval(), torch.rand(1, 3, 56, 24)
    native = build(**BEIT, img_size=(56, 24), out_type='raw').eval()
    native.load_state_dict(vit.state_dict())
    torch.testing.assert_close(vit(image)[0], native(image)[0])


def test_antialiased_positions():
    vit, image = build(pos_antialias=True, out_type='raw'), torch.rand(1, 3, 16, 16)
    wanted = resize_pos_embed(vit.pos_embed, (4, 4), (2, 2), antialias=True)
    assert not torch.equal(wanted, resize_pos_embed(vit.pos_embed, (4, 4), (2, 2)))
    small = build(pos_antialias=True, img_size=16)
    small.load_state_dict(vit.state_dict())
    assert torch.equal(small.pos_embed, wanted)
    torch.testing.assert_close(small.embed(image)[0], vit.embed(image)[0])


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(num_register_tokens=-1), 'num_register_tokens must not be negative'),
        (dict(use_rel_pos=True, use_rel_pos_table=True), r'decomposed \(use_rel_pos\) or a table'),
        (dict(use_rel_pos_table=True, num_register_tokens=1), 'no entries for register tokens'),
        (dict(with_cls_token=False, num_register_tokens=1, window_size=2, out_type='featmap'), 'num_register_tokens=0'),
    ],
)
def test_contradictions(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize(
    'theirs,ours',
    [
        (dict(layer_scale_init_value=0.1), dict(layer_scale_init=0.1)),
        (dict(layer_scale_init_value=0.1, layer_scale_init=0.1), dict(layer_scale_init=0.1)),
        (dict(layer_scale_init_value=0.0), {}),
        (dict(norm_cfg=dict(type='LN', eps=1e-5)), dict(norm_eps=1e-5)),
        (dict(norm_cfg=dict(type='LN')), dict(norm_eps=1e-6)),
        (dict(interpolate_mode='bicubic'), {}),
        (dict(arch=dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=48)), dict(arch=TINY)),
        (dict(arch=dict(TINY, feedforward_channels=48)), dict(arch=TINY)),
    ],
)
def test_options_by_the_names_of_mmpretrain(image, theirs, ours):
    assert torch.equal(build(**theirs)(image)[0], build(**ours)(image)[0])


@pytest.mark.parametrize(
    'theirs,ours', [('b', 'base'), ('l', 'large'), ('h', 'huge'), ('deit-t', 'tiny'), ('dinov2-small', 'small')]
)
def test_architectures_by_the_names_of_mmpretrain(theirs, ours):
    from mmpretrain.models.backbones import VisionTransformer

    sizes = arch_settings(theirs)
    assert sizes == arch_settings(ours)
    if theirs in VisionTransformer.arch_zoo:
        named = VisionTransformer.arch_zoo[theirs]
        assert [sizes[key] for key in ('embed_dims', 'num_layers', 'num_heads')] == list(named.values())[:3]
        assert sizes['embed_dims'] * sizes['mlp_ratio'] == named['feedforward_channels']


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(layer_scale_init=0.1, layer_scale_init_value=0.2), 'layer_scale_init=0.1 and layer_scale_init_value=0.2'),
        (dict(layer_scale_init=0.1, layer_scale_init_value=0), 'layer_scale_init=0.1 and layer_scale_init_value=0'),
        (dict(norm_eps=1e-6, norm_cfg=dict(type='LN', eps=1e-5)), 'norm_eps=1e-06 and norm_cfg.eps=1e-05'),
        (dict(norm_cfg=dict(type='BN')), "norm_cfg must be dict.type='LN'"),
        (dict(interpolate_mode='bilinear'), "interpolate_mode must be 'bicubic', got 'bilinear'"),
        (dict(arch=dict(TINY, feedforward_channels=96)), 'mlp_ratio=2.0 and feedforward_channels / embed_dims=4.0'),
        (dict(arch='s'), "'s' is ambiguous: write 'small'"),
    ],
)
def test_two_names_of_an_option_must_agree(options, message):
    with pytest.raises(OptionError, match=message):
        build(**options)
