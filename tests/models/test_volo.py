# Copyright (c) addp_mm contributors. Apache-2.0.
"""VOLO equals the published code and timm; options, sizes and mix-token."""

import pytest
import timm
import torch
import torch.nn.functional as F
from helpers.tiny_volo import ARCH, backbone, classifier
from helpers.volo_reference import assert_close, exchanged, reference
from mmpretrain.structures import DataSample

from addp_mm.models.backbones import VOLO, volo
from addp_mm.models.heads.volo_head import VOLOHead
from addp_mm.models.layers.mix_token import MixedTokens
from addp_mm.registry import MODELS

SIZES = {  # depth, width, heads, parameters in millions without the two heads
    'd1': ((4, 4, 8, 2), (192, 384), 26.6),
    'd2': ((6, 4, 10, 4), (256, 512), 58.7),
    'd3': ((8, 8, 16, 4), (256, 512), 86.3),
    'd4': ((8, 8, 16, 4), (384, 768), 193),
    'd5': ((12, 12, 20, 4), (384, 768), 295.5),
}


def head():
    """VOLOHead with the reference's weights."""
    ours, weights = VOLOHead(11, 96), reference()['state_dict']
    names = {'fc': 'head', 'aux_fc': 'aux_head'}
    ends = ('weight', 'bias')
    ours.load_state_dict({f'{new}.{end}': weights[f'{old}.{end}'] for new, old in names.items() for end in ends})
    return ours.eval()


@torch.no_grad()
def test_maps_equal_the_published_ones():
    ref = reference()
    ours = backbone(final_norm=False)
    assert (ours.out_channels, ours.out_strides) == ((48, 96, 96, 96), (8, 16, 16, 16))
    assert_close(ours.timm_model.patch_embed(ref['image']).permute(0, 2, 3, 1), ref['embed'])
    for out, expected in zip(ours(ref['image']), ref['stages'], strict=True):
        assert_close(out.permute(0, 2, 3, 1), expected)
    assert_close(ours.timm_model.network[0][0].attn(ref['outlook_in']), ref['outlook_out'])


@torch.no_grad()
def test_tokens_and_logits_equal_the_published_ones():
    ref = reference()
    [tokens] = backbone(out_type='raw', mix_token=True)(ref['image'])
    assert_close(tokens, ref['post'])
    cls_logits, token_logits = head()._logits((tokens,))
    assert_close(cls_logits, ref['cls_logits'])
    assert_close(token_logits, ref['aux_logits'])
    assert_close(head()((tokens,)), ref['eval_logits'])
    assert_close(backbone(out_type='cls_token')(ref['image'])[0], ref['post'][:, 0])
    assert_close(backbone(out_type='avg_featmap')(ref['image'])[0], ref['post'][:, 1:].mean(1))
    [last] = backbone(out_indices=3)(ref['image'])
    assert_close(last.flatten(2).transpose(1, 2), ref['post'][:, 1:])


def training_with_batch_norm_in_eval(ours):
    ours.train()
    for module in ours.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return ours


@torch.no_grad()
def test_mix_token_equals_the_published_one(monkeypatch):
    ref = reference()
    monkeypatch.setattr(volo, 'draw_box', lambda height, width: ref['mix_box'])
    ours = training_with_batch_norm_in_eval(backbone(out_type='raw', mix_token=True))
    [mixed] = ours(ref['image'])
    assert isinstance(mixed, MixedTokens)
    assert mixed.exchanged == exchanged()
    cls_logits, token_logits = head()._logits((mixed,))
    assert_close(cls_logits, ref['mix_cls'])
    assert_close(token_logits, ref['mix_aux'])
    data = [DataSample().set_gt_label(label) for label in ref['labels'][:, :, 0].argmax(1)]
    for sample, labels in zip(data, ref['labels'], strict=True):
        sample.token_labels = labels[:, 1:]
    losses = head().loss((mixed,), data)
    assert_close(losses['loss_cls'] + losses['loss_token'], ref['loss_token_label'])


@torch.no_grad()
@pytest.mark.parametrize('batch', [1, 3])
def test_mix_token_of_an_odd_batch_keeps_the_middle_image(batch, monkeypatch):
    monkeypatch.setattr(volo, 'draw_box', lambda height, width: (1, 0, 3, 3))
    ours = training_with_batch_norm_in_eval(backbone(out_type='raw', mix_token=True))
    images = torch.rand(batch, 3, 64, 96)
    [mixed] = ours(images)
    assert mixed.exchanged == 6 / 24
    expected = ours.eval()(images)[0]
    middle = batch // 2
    torch.testing.assert_close(mixed.tokens[middle], expected[middle], atol=1e-5, rtol=0)
    assert batch == 1 or (mixed.tokens[0] - expected[0]).abs().max() > 0.01


def test_boxes_and_losses_are_repeated_from_the_same_random_state():
    ours = classifier(mix_token=True).train()
    data = [DataSample().set_gt_label(label) for label in (1, 2, 3)]
    images = torch.rand(3, 3, 64, 64)
    state = torch.get_rng_state()
    first = [ours.loss(images, data)['loss_cls'].item() for _ in range(3)]
    torch.set_rng_state(state)
    assert [ours.loss(images, data)['loss_cls'].item() for _ in range(3)] == pytest.approx(first, rel=1e-6)
    assert len(set(first)) == 3


@torch.no_grad()
def test_d1_equals_timms_volo():
    torch.manual_seed(0)
    theirs = timm.create_model('volo_d1_224', num_classes=7, img_size=(96, 64)).eval()
    for name, value in theirs.named_buffers():
        if name.endswith('running_mean'):
            value.normal_(std=0.1)
    weights = {f'timm_model.{name}': value for name, value in theirs.state_dict().items()}
    images = torch.randn(2, 3, 96, 64)
    maps = VOLO('d1', img_size=(96, 64), final_norm=False).eval()
    assert {name for name in weights if 'head' not in name} > set(maps.state_dict())
    maps.load_state_dict({name: weights[name] for name in maps.state_dict()})
    expected = theirs.forward_intermediates(images, intermediates_only=True)
    for out, their_map in zip(maps(images), expected, strict=True):
        torch.testing.assert_close(out, their_map, atol=1e-5, rtol=0)
    ours = VOLO('d1', img_size=(96, 64), out_type='raw').eval()
    assert set(ours.state_dict()) == {name for name in weights if 'head' not in name}
    ours.load_state_dict({name: weights[name] for name in ours.state_dict()})
    head = VOLOHead(7, 384)
    head.fc, head.aux_fc = theirs.head, theirs.aux_head
    torch.testing.assert_close(head(ours(images)), theirs(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize('arch', SIZES)
def test_sizes_of_the_published_architectures(arch):
    layers, dims, millions = SIZES[arch]
    with torch.device('meta'):
        ours = VOLO(arch, out_type='raw')
        heads = 2 * (dims[1] + 1) * 1000
    network = ours.timm_model.network
    assert tuple(len(network[i]) for i in (0, 2, 3, 4)) == layers
    assert ours.out_channels == (dims[1],)
    total = sum(parameter.numel() for parameter in ours.parameters()) + heads
    assert total / 1e6 == pytest.approx(millions, rel=0.01)


@torch.no_grad()
@pytest.mark.parametrize('size', [(96, 64), (64, 64), (50, 70)])
def test_images_of_other_sizes(size):
    """As a VOLO of that size with resized positions; sizes between are padded with zeros."""
    images = torch.randn(1, 3, *size)
    padded = F.pad(images, (0, -size[1] % 16, 0, -size[0] % 16))
    grid = tuple(side // 16 for side in padded.shape[2:])
    other = backbone(img_size=(64, 64), final_norm=False)
    own = VOLO(ARCH, img_size=tuple(padded.shape[2:]), final_norm=False).eval()
    weights = dict(other.state_dict())
    pos = weights['timm_model.pos_embed'].permute(0, 3, 1, 2)
    weights['timm_model.pos_embed'] = F.interpolate(pos, size=grid, mode='bicubic').permute(0, 2, 3, 1)
    own.load_state_dict(weights)
    for out, expected, stride in zip(other(images), own(padded), other.out_strides, strict=True):
        height, width = (-(-side // stride) for side in size)
        assert out.shape[2:] == (height, width)
        torch.testing.assert_close(out, expected[..., :height, :width], atol=1e-5, rtol=0)


def test_positions_are_resized_when_weights_are_loaded():
    small, large = backbone(), VOLO(ARCH, img_size=(96, 64))
    large.load_state_dict(small.state_dict())
    assert large.timm_model.pos_embed.shape == (1, 6, 4, 96)
    expected = F.interpolate(small.timm_model.pos_embed.permute(0, 3, 1, 2), size=(6, 4), mode='bicubic')
    torch.testing.assert_close(large.timm_model.pos_embed, expected.permute(0, 2, 3, 1))


def test_stochastic_depth_grows_as_published_and_outlookers_have_none():
    network = VOLO(ARCH, drop_path_rate=0.5).timm_model.network
    rates = [getattr(block.drop_path1, 'drop_prob', 0) for i in (0, 2, 3, 4) for block in network[i]]
    assert rates == pytest.approx([0, 0, 0.2, 0.3, 0.4, 0.5])
    with torch.device('meta'):
        d1 = VOLO('d1', drop_path_rate=0.1, out_type='raw').timm_model
    assert not any(hasattr(block.drop_path1, 'drop_prob') for block in (*d1.network[0], *d1.post_network))
    assert d1.network[4][1].drop_path1.drop_prob == pytest.approx(0.1)
    assert d1.network[2][0].drop_path1.drop_prob == pytest.approx(0.1 * 4 / 17)


def test_layers_that_no_output_needs_are_removed():
    """Else distributed training would wait for their gradients."""
    for options in (dict(), dict(out_indices=(0, 1)), dict(out_type='raw'), dict(out_type='cls_token')):
        ours = VOLO(ARCH, img_size=64, **options)
        sum(out.square().sum() for out in ours(torch.rand(2, 3, 64, 64))).backward()
        unused = [name for name, parameter in ours.named_parameters() if parameter.grad is None]
        assert unused == []
    assert not any('post_network' in name or 'cls_token' in name for name in VOLO(ARCH).state_dict())


def test_all_parameters_of_a_classifier_are_trained():
    torch.manual_seed(0)
    ours = classifier(mix_token=True, drop_path_rate=0.1).train()
    data = [DataSample().set_gt_label(label) for label in (1, 2)]
    losses = ours(torch.rand(2, 3, 64, 64), data, mode='loss')
    sum(losses.values()).backward()
    assert [name for name, parameter in ours.named_parameters() if parameter.grad is None] == []
    predicted = ours.eval()(torch.rand(2, 3, 64, 64), data, mode='predict')
    assert predicted[0].pred_score.shape == (11,)


def test_layer_depths_and_frozen_stages():
    ours = VOLO(ARCH, img_size=64, out_type='raw', frozen_stages=2).train()
    depths = {name: ours.get_layer_depth(f'backbone.{name}', 'backbone.')[0] for name, _ in ours.named_parameters()}
    assert depths['timm_model.pos_embed'] == depths['timm_model.cls_token'] == 0
    assert [depths[f'timm_model.network.{block}.norm1.weight'] for block in ('0.0', '0.1', '2.0')] == [1, 2, 4]
    assert depths['timm_model.post_network.1.norm1.weight'] == depths['timm_model.norm.weight']
    frozen = {name for name, parameter in ours.named_parameters() if not parameter.requires_grad}
    assert {f'timm_model.{name}' for name in ('network.0.1.norm1.bias', 'network.2.0.norm1.bias')} <= frozen
    assert not any(name.startswith(('timm_model.network.3', 'timm_model.post')) for name in frozen)
    assert not ours.timm_model.patch_embed.conv[1].training
    assert ours.timm_model.network[3].training


def test_recomputed_activations_give_the_same_gradients():
    torch.manual_seed(0)
    images, grads = torch.rand(2, 3, 64, 64), []
    for with_cp in (False, True):
        ours = backbone(out_type='raw', with_cp=with_cp).train()
        ours(images)[0].square().sum().backward()
        grads.append(ours.timm_model.network[0][0].attn.v.weight.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(arch='volo_d7'), "arch of VOLO must be one of .*got 'volo_d7'; did you mean d"),
        (dict(arch=dict(layers=(1, 1, 1, 1))), "needs .*'num_heads'"),
        (dict(arch={**ARCH, 'layers': (2, 2)}), 'layers of an arch dict of VOLO must be 4'),
        (dict(arch={**ARCH, 'num_heads': (5, 6)}), 'embed_dims 48 of VOLO cannot be divided by num_heads 5'),
        (dict(arch={**ARCH, 'patch_size': 7}), 'patch_size of VOLO must be 4, 8 or 16'),
        (dict(img_size=200), 'img_size 200 x 200 of VOLO must be multiples of 16 pixels'),
        (dict(out_type='tokens'), 'out_type must be one of'),
        (dict(out_type='raw', out_indices=(0, 3)), 'leave out out_indices'),
        (dict(mix_token=True), "mix_token=True needs out_type='raw', got 'featmap'"),
        (dict(drop_path_rate=1.0), 'drop_path_rate'),
        (dict(out_indices=(4,)), 'out_indices'),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type='addp_mm.VOLO', **{**dict(arch=ARCH), **options}))


def test_too_small_images_are_refused():
    with pytest.raises(ValueError, match='an image of 8x64 pixels is smaller than the stride 16'):
        backbone()(torch.rand(1, 3, 8, 64))
