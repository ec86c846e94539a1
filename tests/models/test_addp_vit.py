# Copyright (c) addp_mm contributors. Apache-2.0.
"""ADDPViT: outputs, sizes, options, freezing, loading and bad arguments."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from addp_mm.models.backbones import ADDPViT
from addp_mm.models.layers import resize_pos_embed
from addp_mm.registry import MODELS

TINY = dict(embed_dims=24, num_layers=4, num_heads=3, mlp_ratio=2.0)


def build(**options) -> ADDPViT:
    """A ViT of four blocks for images of 32 pixels and patches of 8."""
    torch.manual_seed(0)
    return ADDPViT(**{**dict(arch=TINY, img_size=32, patch_size=8), **options})


@pytest.fixture
def image():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    'out_type,shape',
    [('cls_token', (2, 24)), ('avg_featmap', (2, 24)), ('featmap', (2, 24, 4, 4)), ('raw', (2, 17, 24))],
)
def test_out_types(image, out_type, shape):
    outs = build(out_type=out_type, out_indices=(1, -1))(image)
    assert isinstance(outs, tuple)
    assert [tuple(x.shape) for x in outs] == [shape, shape]


def test_out_types_select_from_the_same_tokens(image):
    raw = build(out_type='raw', final_norm=False)(image)[0]
    assert torch.equal(build(out_type='cls_token', final_norm=False)(image)[0], raw[:, 0])
    featmap = build(out_type='featmap', final_norm=False)(image)[0]
    assert torch.equal(featmap[:, :, 1, 2], raw[:, 1 + 1 * 4 + 2])


def test_norms_are_at_their_positions(image):
    plain, normed = build(out_type='raw', final_norm=False), build(out_type='raw', out_indices=(2, 3))
    nn.init.constant_(normed.final_norm.bias, 5.0)
    inner, last = normed(image)
    torch.testing.assert_close(last, normed.final_norm(plain(image)[0]))
    short = build(out_type='raw', out_indices=2)
    assert set(short.load_state_dict(normed.state_dict(), strict=False).missing_keys) == set()
    assert torch.equal(inner, short(image)[0])
    average = build(out_type='avg_featmap')
    torch.testing.assert_close(average(image)[0], average.final_norm(plain(image)[0][:, 1:].mean(dim=1)))


def test_pre_norm_follows_the_embedding(image):
    with_norm, without = build(pre_norm=True), build()
    nn.init.normal_(with_norm.pre_norm.weight)
    tokens, hw = without.embed(image)
    assert hw == (4, 4)
    assert tokens.shape == (2, 17, 24)
    torch.testing.assert_close(with_norm.embed(image)[0], with_norm.pre_norm(tokens))
    assert not any(name.startswith('pre_norm') for name in without.state_dict())


def test_state_dict_keys():
    keys = set(build(pre_norm=True).state_dict())
    parts = ('norm1', 'attn.qkv', 'attn.proj', 'norm2', 'mlp.fc1', 'mlp.fc2')
    modules = ['patch_embed.projection', 'pre_norm', 'final_norm']
    modules += [f'blocks.{i}.{part}' for i in range(4) for part in parts]
    assert keys == {'cls_token', 'pos_embed'} | {f'{m}.{p}' for m in modules for p in ('weight', 'bias')}


@pytest.mark.parametrize('size,grid', [((48, 24), (6, 3)), ((16, 64), (2, 8))])
def test_any_multiple_of_the_patch_with_positions_resized(size, grid):
    vit = build(out_type='featmap').eval()
    image = torch.rand(1, 3, *size)
    out = vit(image)[0]
    assert out.shape == (1, 24, *grid)
    native = build(out_type='featmap', img_size=size).eval()
    state = vit.state_dict()
    state['pos_embed'] = resize_pos_embed(state['pos_embed'], (4, 4), grid)
    native.load_state_dict(state)
    torch.testing.assert_close(native(image)[0], out)


def test_a_size_that_does_not_fit_is_refused_or_padded():
    image = torch.rand(1, 3, 30, 41)
    with pytest.raises(ValueError, match=r'30 x 41.*8 pixels.*pad_to_patch'):
        build()(image)
    padded = torch.zeros(1, 3, 32, 48)
    padded[..., :30, :41] = image
    vit = build(pad_to_patch=True, out_type='featmap')
    assert torch.equal(vit(image)[0], vit(padded)[0])


def test_only_blocks_that_are_used_are_built(image):
    vit = build(out_indices=(0, 2), out_type='featmap')
    assert len(vit.blocks) == 3
    assert isinstance(vit.final_norm, nn.Identity)
    sum(x.square().sum() for x in vit(image)).backward()
    assert all(p.grad is not None for p in vit.parameters())


@pytest.mark.parametrize('out_type', ['cls_token', 'avg_featmap', 'featmap', 'raw'])
def test_every_parameter_is_used(image, out_type):
    vit = build(out_type=out_type, pre_norm=True, use_rel_pos=True)
    vit(image)[0].square().sum().backward()
    assert all(p.grad is not None for p in vit.parameters())


def test_windows_with_global_blocks(image):
    options = dict(with_cls_token=False, out_type='featmap', use_rel_pos=True)
    vit = build(window_size=3, global_blocks=(1, 3), **options)
    assert [block.window_size for block in vit.blocks] == [3, 0, 3, 0]
    assert [block.attn.rel_pos_h.shape[0] for block in vit.blocks] == [5, 7, 5, 7]
    assert vit(image)[0].shape == (2, 24, 4, 4)
    assert vit.pos_embed.shape == (1, 16, 24)
    whole, full = build(window_size=4, **options), build(**options)
    torch.testing.assert_close(whole(image)[0], full(image)[0])


def test_drop_path_grows_and_is_off_in_eval(image):
    vit = build(drop_path_rate=0.3, drop_rate=0.1, attn_drop_rate=0.1)
    assert [block.drop_path.drop_prob for block in vit.blocks] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert not torch.equal(vit(image)[0], vit(image)[0])
    assert vit.eval() is vit
    assert torch.equal(vit(image)[0], vit(image)[0])
    assert torch.equal(vit(image)[0], build().eval()(image)[0])
    few = build(drop_path_rate=0.3, out_indices=1)
    assert few.blocks[1].drop_path.drop_prob == pytest.approx(0.1)


def test_gradients_with_checkpointing_are_equal(image):
    grads = []
    for with_cp in (False, True):
        vit = build(with_cp=with_cp, drop_rate=0.2, drop_path_rate=0.2, out_type='raw', out_indices=(1, 3))
        torch.manual_seed(3)
        sum(x.square().sum() for x in vit(image)).backward()
        grads.append([p.grad for p in vit.parameters()])
    for with_cp, without in zip(*grads, strict=True):
        torch.testing.assert_close(with_cp, without)


def test_checkpointing_runs_each_block_again(image):
    vit, calls = build(with_cp=True), []
    vit.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    vit(image)[0].sum().backward()
    assert len(calls) == 2


@pytest.mark.parametrize('stages,frozen_blocks', [(0, 0), (2, 2), (4, 4)])
def test_frozen_stages_have_no_gradient_and_stay_in_eval(image, stages, frozen_blocks):
    vit = build(frozen_stages=stages, pre_norm=True, drop_rate=0.5, drop_path_rate=0.5)
    assert vit.train() is vit
    assert vit.training
    stem = [vit.patch_embed, vit.pre_norm, vit.drop_after_pos]
    frozen = stem + list(vit.blocks[:frozen_blocks]) + ([vit.final_norm] if stages == 4 else [])
    assert not any(m.training for part in frozen for m in part.modules())
    assert all(m.training for block in vit.blocks[frozen_blocks:] for m in block.modules())
    assert vit.final_norm.training == (stages != 4)
    names = {name for name, p in vit.named_parameters() if not p.requires_grad}
    expected = tuple(
        ['cls_token', 'pos_embed', 'patch_embed', 'pre_norm']
        + [f'blocks.{i}.' for i in range(frozen_blocks)]
        + (['final_norm'] if stages == 4 else [])
    )
    assert names == {name for name in vit.state_dict() if name.startswith(expected)}
    if stages < 4:
        vit(image)[0].sum().backward()
        assert all((p.grad is None) == (name in names) for name, p in vit.named_parameters())


def test_nothing_is_frozen_by_default():
    assert all(p.requires_grad for p in build().parameters())
    assert all(m.training for m in build().train().modules())


def test_layer_depths():
    vit = build(pre_norm=True, use_rel_pos=True)
    depths = {name: vit.get_layer_depth(f'backbone.{name}', 'backbone.') for name, _ in vit.named_parameters()}
    assert {count for _, count in depths.values()} == {6}
    for name, (depth, _) in depths.items():
        parts = name.split('.')
        assert depth == {'blocks': int(parts[1]) + 1 if parts[0] == 'blocks' else 0, 'final_norm': 5}.get(parts[0], 0)
    assert vit.get_layer_depth('head.fc.weight', 'backbone.') == (5, 6)
    assert vit.get_layer_depth('pos_embed') == (0, 6)


def test_weights_of_another_size_load(image):
    small, large = build(use_rel_pos=True), build(img_size=(48, 64), use_rel_pos=True)
    nn.init.normal_(small.blocks[0].attn.rel_pos_h)
    state = small.state_dict()
    before = {key: value.clone() for key, value in state.items()}
    large.load_state_dict(state)
    torch.testing.assert_close(large.pos_embed.data, resize_pos_embed(small.pos_embed.data, (4, 4), (6, 8)))
    assert large.blocks[0].attn.rel_pos_h.shape == (11, 8)
    assert large.blocks[0].attn.rel_pos_h.any()
    assert all(torch.equal(small.state_dict()[key], value) for key, value in before.items())


def test_weights_with_a_class_token_load_where_there_is_none():
    source, target = build(), build(with_cls_token=False, out_type='featmap', window_size=2)
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.pos_embed, source.pos_embed[:, 1:])


def test_a_class_token_among_the_weights_has_one_of_the_positions():
    """14 x 16 positions and one of a class token are as many as 15 x 15."""
    source = build(img_size=(112, 128), patch_size=8)
    with pytest.raises(ValueError, match='224 positions, which are not a square map'):
        build(img_size=256, patch_size=8).load_state_dict(source.state_dict())
    same = build(img_size=(112, 128), patch_size=8, with_cls_token=False, out_type='featmap')
    same.load_state_dict(source.state_dict())
    assert torch.equal(same.pos_embed, source.pos_embed[:, 1:])


def test_positions_of_an_unknown_shape_are_refused():
    with pytest.raises(ValueError, match='12 positions, which are not a square map'):
        build().load_state_dict(build(img_size=(24, 32)).state_dict())


def test_random_weights_are_set_at_construction():
    vit = build()
    assert vit.pos_embed.std().item() == pytest.approx(0.02, rel=0.15)
    assert vit.cls_token.any()
    bound = (6 / (3 * 64 + 24)) ** 0.5
    assert bound * 0.97 < vit.patch_embed.projection.weight.abs().max() <= bound
    before = {key: value.clone() for key, value in vit.state_dict().items()}
    vit.init_weights()
    assert all(torch.equal(value, before[key]) for key, value in vit.state_dict().items())


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(arch='giant'), "arch must be one of .*'giant'"),
        (dict(arch=dict(embed_dims=24)), 'arch dict needs'),
        (dict(arch=dict(TINY, depth=3)), "may have mlp_ratio or feedforward_channels.*'depth'"),
        (dict(arch=dict(TINY, num_heads=5)), 'num_heads 5'),
        (dict(img_size=(32, 30)), 'img_size 32 x 30 .* patch_size 8'),
        (dict(out_indices=4), r'out_indices \(4,\) must be in \[-4, 3\]'),
        (dict(out_indices=(3, 1)), r'out_indices must ascend.*\(3, 1\)'),
        (dict(out_indices=()), 'at least one of the blocks'),
        (dict(out_type='tokens'), "out_type must be one of .*'tokens'"),
        (dict(with_cls_token=False), "out_type='cls_token' needs"),
        (dict(window_size=2), 'with_cls_token=False'),
        (dict(global_blocks=(1,)), 'window_size is 0'),
        (dict(window_size=2, global_blocks=(9,)), 'global_blocks'),
        (dict(frozen_stages=5), r'frozen_stages must be in \[-1, 4\]'),
        (dict(drop_path_rate=1.0), 'drop_path_rate'),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize('arch,params', [('nano', 1.29e6), ('tiny', 5.4e6), ('small', 21.5e6)])
def test_presets_have_their_size(arch, params):
    count = sum(p.numel() for p in ADDPViT(arch, img_size=64).parameters())
    assert count == pytest.approx(params, rel=0.03)


def test_built_from_a_config(image):
    vit = MODELS.build(dict(type='addp_mm.ADDPViT', arch=TINY, img_size=32, patch_size=8))
    assert type(vit) is ADDPViT
    assert vit(image)[0].shape == (2, 24)


def test_a_detector_gets_backbone_and_neck_without_tokenizer_or_mmpretrain():
    code = (
        "import sys, addp_mm; models = addp_mm.registry.MODELS; models.get('ADDPViT'); models.get('SimpleFPN'); "
        "names = ('mmpretrain', 'mmdet', 'mmseg', 'addp_mm.models.tokenizers', 'addp_mm.models.predictors'); "
        'print([name for name in names if name in sys.modules])'
    )
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert out.stdout.strip().splitlines()[-1] == '[]'
