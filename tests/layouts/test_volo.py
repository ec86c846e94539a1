# Copyright (c) addp_mm contributors. Apache-2.0.
"""Weights of VOLO between the published code, timm and addp_mm, compared by their outputs."""

import runpy
from pathlib import Path

import pytest
import timm
import torch
from helpers.tiny_volo import ARCH, classifier, classifier_config
from helpers.volo_reference import assert_close, reference
from mmengine.config import Config
from mmengine.registry import DefaultScope
from safetensors.torch import load_file, save_file

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.layouts import find_layout
from addp_mm.layouts.volo import VOLO, to_published, volo_args
from addp_mm.models import backbones
from addp_mm.models.backbones import ADDPViT, TimmBackbone
from addp_mm.models.heads.volo_head import VOLOHead
from addp_mm.models.pretrained import Pretrained
from addp_mm.registry import MODELS

TOOL = Path(__file__).parents[2] / 'tools' / 'model_converters' / 'volo.py'


def convert(*arguments):
    runpy.run_path(str(TOOL))['main']([str(one) for one in arguments])


@pytest.fixture(scope='module')
def official(tmp_path_factory):
    """The reference as a published file."""
    path = tmp_path_factory.mktemp('volo') / 'tiny.pth.tar'
    torch.save(reference()['state_dict'], path)
    return str(path)


def pretrained(checkpoint, **options):
    return dict(type='addp_mm.Pretrained', checkpoint=checkpoint, **options)


def initialised(cfg):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg)
        model.init_weights()
    return model.eval()


def test_the_layout_is_recognised_and_every_key_is_converted():
    weights = reference()['state_dict']
    assert find_layout(weights) is VOLO
    converted = VOLO.convert(weights)
    assert set(converted) == set(classifier().state_dict())
    assert converted['backbone.timm_model.patch_embed.conv.1.num_batches_tracked'].dtype == torch.int64
    back = to_published(converted)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weight) and back[name].dtype == weight.dtype for name, weight in weights.items())
    assert find_layout(converted) is None
    with pytest.raises(ValueError, match=r'unknown in the layout of VOLO: network\.0\.0\.attn\.gate'):
        VOLO.convert({**weights, 'network.0.0.attn.gate': torch.ones(1)})


def test_sizes_are_inferred():
    found = volo_args(reference()['state_dict'])
    assert found == dict(
        arch={**ARCH, 'num_heads': (3, None), 'mlp_ratio': (3, 3), 'patch_size': 8}, img_size=64, in_channels=3
    )
    with torch.device('meta'):
        for arch in ('d2', 'd4'):
            state = backbones.VOLO(arch, img_size=(384, 224), out_type='raw').state_dict()
            weights = {name.removeprefix('timm_model.'): weight for name, weight in state.items()}
            assert volo_args(weights) == dict(arch=arch, img_size=(384, 224), in_channels=3)


@torch.no_grad()
@pytest.mark.parametrize('form', ['bare', 'training', 'ema', 'safetensors'])
def test_a_classifier_loads_published_weights(tmp_path, form):
    weights, options = reference()['state_dict'], {}
    path = tmp_path / 'volo.pth.tar'
    if form == 'safetensors':
        path = tmp_path / 'model.safetensors'
        save_file(weights, path)
    elif form == 'training':
        torch.save(dict(state_dict={f'module.{name}': one for name, one in weights.items()}, epoch=3), path)
    elif form == 'ema':
        noise = {name: torch.zeros_like(one) for name, one in weights.items()}
        torch.save(dict(state_dict=noise, state_dict_ema=weights), path)
        options = dict(prefix='state_dict_ema.')
    else:
        torch.save(weights, path)
    ours = initialised(dict(classifier_config(), init_cfg=pretrained(str(path), **options)))
    assert_close(ours(reference()['image'], mode='tensor'), reference()['eval_logits'])


@torch.no_grad()
def test_a_backbone_and_a_head_load_their_part(official):
    image = reference()['image']
    config = classifier_config()
    backbone = initialised(dict(config['backbone'], init_cfg=pretrained(official)))
    assert_close(backbone(image)[0], reference()['post'])
    maps = initialised(
        dict(
            config['backbone'], out_type='featmap', final_norm=False, init_cfg=pretrained(official, prefix='backbone.')
        )
    )
    assert_close(maps(image)[3].permute(0, 2, 3, 1), reference()['stages'][3])
    head = initialised(dict(config['head'], init_cfg=pretrained(official, prefix='head.')))
    assert_close(head((reference()['post'],)), reference()['eval_logits'])


def test_another_image_size_resizes_the_positions(official):
    ours = initialised(dict(classifier_config(img_size=(96, 128)), init_cfg=pretrained(official)))
    assert ours.backbone.timm_model.pos_embed.shape == (1, 6, 8, 96)


@torch.no_grad()
def test_grey_images(official):
    """The grey model gives what the RGB model gives for the same image in all channels."""
    adapted = pretrained(official, adapt_in_channels=True)
    grey = initialised(dict(classifier_config(in_channels=1), init_cfg=adapted))
    rgb = initialised(dict(classifier_config(), init_cfg=pretrained(official)))
    image = torch.rand(1, 1, 64, 64)
    expected = rgb(image.expand(-1, 3, -1, -1), mode='tensor')
    torch.testing.assert_close(grey(image, mode='tensor'), expected, atol=1e-4, rtol=1e-4)


def test_weights_of_another_architecture_are_refused(tmp_path, official):
    wider = {**ARCH, 'embed_dims': (96, 192)}
    with pytest.raises(CheckpointError, match=r'(?s)network\.0\.0.* is \[48\].*\[96\].*checkpoint is made for arch='):
        initialised(dict(type='addp_mm.VOLO', arch=wider, img_size=64, init_cfg=pretrained(official)))
    longer = {**ARCH, 'layers': (2, 1, 3, 1)}
    with pytest.raises(
        CheckpointError, match=r'network\.3 has 2 blocks in the checkpoint and 3 in VOLO: .*another arch'
    ):
        initialised(dict(type='addp_mm.VOLO', arch=longer, img_size=64, init_cfg=pretrained(official)))
    with pytest.raises(CheckpointError, match=r'head\.fc\.weight is \[11, 96\].*\[5, 96\]'):
        initialised(dict(classifier_config(num_classes=5), init_cfg=pretrained(official)))
    with pytest.raises(CheckpointError, match='for ADDPViT, which would stay random'):
        ADDPViT('nano', init_cfg=pretrained(official)).init_weights()


def test_blocks_that_would_be_left_out_are_refused(official):
    """d2 is a d3 with fewer blocks, of the same shapes."""
    shorter = {**ARCH, 'layers': (2, 1, 1, 1)}
    ours = backbones.VOLO(shorter, img_size=64)
    with pytest.raises(CheckpointError, match=r'network\.3 has 2 blocks in the checkpoint and 1 in VOLO'):
        Pretrained(official)(ours)
    with pytest.raises(RuntimeError, match=r'network\.3 has 2 blocks in the checkpoint and 1 in VOLO'):
        ours.load_state_dict({f'timm_model.{name}': one for name, one in reference()['state_dict'].items()}, False)
    with pytest.raises(CheckpointError, match=r'3 has 2 blocks in the checkpoint and 1 in VOLO.*\(backbone\.\*\)'):
        Pretrained(official)(classifier(arch=shorter))
    longer = classifier(arch={**ARCH, 'layers': (2, 1, 3, 1)})
    with pytest.raises(CheckpointError, match=r'3 has 2 blocks in the checkpoint and 3 in VOLO.*\(backbone\.\*\)'):
        Pretrained(official)(longer)


def test_d2_into_d1_names_what_differs(tmp_path):
    """Expanded zeros: the file has one number for each tensor."""
    with torch.device('meta'):
        state = backbones.VOLO('d2', out_type='raw').state_dict()
    kept = {name.removeprefix('timm_model.'): torch.zeros(()).expand(value.shape) for name, value in state.items()}
    torch.save(kept, tmp_path / 'd2.pth.tar')
    with pytest.raises(CheckpointError, match=r"(?s)\[256\] in the checkpoint.*made for arch='d2', img_size=224"):
        backbones.VOLO('d1', init_cfg=pretrained(str(tmp_path / 'd2.pth.tar'))).init_weights()


@torch.no_grad()
def test_the_tool_converts_in_both_directions(tmp_path, official, capsys):
    ours, back = tmp_path / 'ours.safetensors', tmp_path / 'back.pth.tar'
    with pytest.raises(SystemExit, match=r'none of d1 to d5 \(blocks \(2, 1, 2, 1\).*give --num-heads'):
        convert(official, ours)
    convert(official, ours, '--num-heads', 6)
    assert 'logits (2, 11); the original implementation differs by' in capsys.readouterr().out
    model = initialised(Config.fromfile(tmp_path / 'ours.json').model)
    assert_close(model(reference()['image'], mode='tensor'), reference()['eval_logits'])
    convert(ours, back, '--to', 'official', '--num-heads', 6)
    weights = torch.load(back, weights_only=True)
    assert weights.keys() == reference()['state_dict'].keys()
    assert all(torch.equal(weight, reference()['state_dict'][name]) for name, weight in weights.items())


def test_the_tool_refuses_what_it_cannot_convert(tmp_path, official):
    with pytest.raises(SystemExit, match='timm loads d1 to d5 only'):
        convert(official, tmp_path / 'folder', '--to', 'timm', '--num-heads', 6)
    with pytest.raises(SystemExit, match=r'must end in \.pth\.tar or \.pth'):
        convert(official, tmp_path / 'x.bin', '--to', 'official', '--num-heads', 6)
    save_file({f'net.{name}': one for name, one in reference()['state_dict'].items()}, tmp_path / 'net.safetensors')
    with pytest.raises(SystemExit, match=r'give --prefix net\.'):
        convert(tmp_path / 'net.safetensors', tmp_path / 'x.pth')
    save_file(VOLO.convert(reference()['state_dict']), tmp_path / 'ours.safetensors')
    with pytest.raises(SystemExit, match='has the names of addp_mm already: give --to official'):
        convert(tmp_path / 'ours.safetensors', tmp_path / 'x.pth')
    save_file({'backbone.timm_model.blocks.0.attn.qkv.weight': torch.zeros(6, 2)}, tmp_path / 'vit.safetensors')
    with pytest.raises(SystemExit, match='is neither a published VOLO nor a classifier with'):
        convert(tmp_path / 'vit.safetensors', tmp_path / 'x.pth')
    headless = {name: one for name, one in reference()['state_dict'].items() if 'head' not in name}
    save_file(headless, tmp_path / 'headless.safetensors')
    with pytest.raises(SystemExit, match=r'not a whole VOLO classifier: head\.weight, aux_head\.weight missing'):
        convert(tmp_path / 'headless.safetensors', tmp_path / 'x.pth')
    assert not list(tmp_path.glob('x.*'))


@torch.no_grad()
@pytest.mark.slow
def test_d1_of_timm_to_addp_mm_and_back(tmp_path, capsys):
    torch.manual_seed(0)
    model = timm.create_model('volo_d1_224', img_size=32, num_classes=7).eval()
    save_file(model.state_dict(), tmp_path / 'timm.safetensors')
    images = torch.randn(1, 3, 32, 32)
    backbone = TimmBackbone(
        'volo_d1_224',
        out_indices=3,
        model_kwargs=dict(img_size=32),
        init_cfg=pretrained(str(tmp_path / 'timm.safetensors')),
    )
    backbone.init_weights()
    torch.testing.assert_close(
        backbone.eval()(images)[0].flatten(2).transpose(1, 2), model.forward_features(images)[:, 1:], atol=1e-5, rtol=0
    )
    convert(tmp_path / 'timm.safetensors', tmp_path / 'ours.pth')
    ours = initialised(Config.fromfile(tmp_path / 'ours.json').model)
    assert isinstance(ours.head, VOLOHead)
    torch.testing.assert_close(ours(images, mode='tensor'), model(images), atol=1e-5, rtol=0)
    convert(tmp_path / 'ours.pth', tmp_path / 'folder', '--to', 'timm')
    assert 'local-dir:' in capsys.readouterr().out
    back = timm.create_model(f'local-dir:{tmp_path / "folder"}', pretrained=True).eval()
    assert torch.equal(back(images), model(images))
    assert load_file(tmp_path / 'folder' / 'model.safetensors').keys() == model.state_dict().keys()
