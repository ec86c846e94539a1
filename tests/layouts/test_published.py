# Copyright (c) addp_mm contributors. Apache-2.0.
"""The encoder of published ADDP files, compared with the published implementation's features."""

import argparse
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from helpers import published_reference as pr
from mmengine.config import Config

import addp_mm
from addp_mm.apis import load_model
from addp_mm.layouts import find_layout
from addp_mm.layouts.published import PUBLISHED, PUBLISHED_ENCODER, convert_published, published_args
from addp_mm.layouts.vit_weights import vit_args
from addp_mm.models.backbones import ADDPViT
from addp_mm.registry import MODELS

TOOL = Path(addp_mm.__file__).parents[1] / 'tools/model_converters/published_addp.py'
ENCODER = ('cls_token', 'pos_embed', 'patch_embed.', 'tokenizer_norm.', 'blocks.', 'norm.')


@pytest.fixture(scope='module')
def reference():
    return pr.read_reference()


@pytest.fixture(scope='module')
def everything(reference):
    return pr.published_checkpoint(reference)


@pytest.fixture(scope='module')
def encoder(everything):
    return {key: value for key, value in everything.items() if key.startswith(ENCODER)}


def built(state_dict, **options):
    settings = PUBLISHED_ENCODER.build_args(state_dict)
    settings['arch']['num_heads'] = pr.HEADS['num_heads']
    backbone = ADDPViT(**{**settings, **options}).eval()
    backbone.load_state_dict(PUBLISHED_ENCODER.convert(state_dict), strict=True)
    return backbone


def normalised(reference):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (reference.image - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)


@torch.no_grad()
@pytest.mark.parametrize('part', ['encoder', 'everything'])
def test_features_equal_the_published_ones(reference, encoder, everything, part):
    backbone = built(encoder if part == 'encoder' else everything, out_type='raw')
    features = backbone(normalised(reference))[-1]
    torch.testing.assert_close(features, reference.results['pretrain_style_tokens'], atol=pr.TOLERANCE, rtol=0)


@torch.no_grad()
def test_a_fine_tuned_classifier_gives_its_features(reference, encoder):
    """Published fine-tuning drops the norm after the embedding. It normalises averaged features."""
    state = {key: value for key, value in encoder.items() if not key.startswith(('tokenizer_norm.', 'norm.'))}
    weight, bias = 1 + torch.rand(2, len(encoder['norm.weight']))
    state |= {
        'fc_norm.weight': weight,
        'fc_norm.bias': bias,
        'head.weight': torch.ones(5, 1),
        'head.bias': torch.ones(5),
    }
    backbone = built(state)
    assert backbone.out_type == 'avg_featmap'
    assert set(dict(backbone.named_parameters())) == set(PUBLISHED_ENCODER.convert(state))
    mean = reference.results['finetune_tokens'][:, 1:].mean(dim=1)
    expected = torch.nn.functional.layer_norm(mean, mean.shape[-1:], weight, bias, 1e-6)
    torch.testing.assert_close(backbone(normalised(reference))[-1], expected, atol=pr.TOLERANCE, rtol=0)


def test_the_layout_follows_from_the_keys(encoder, everything, reference):
    assert find_layout(everything) is find_layout(reference.state_dict) is PUBLISHED
    assert find_layout(encoder) is PUBLISHED_ENCODER
    without_frozen = {
        key: value for key, value in everything.items() if not key.startswith(('token_predictor.', 'vqgan.'))
    }
    assert find_layout(without_frozen) is PUBLISHED_ENCODER
    assert set(PUBLISHED_ENCODER.convert(without_frozen)) == set(PUBLISHED_ENCODER.convert(encoder))
    assert find_layout(convert_published(everything)) is None


def test_sizes_are_read_from_the_tensors(encoder, everything):
    settings = vit_args(PUBLISHED_ENCODER.convert(encoder))
    assert settings == dict(
        arch=dict(embed_dims=48, num_layers=2, mlp_ratio=4.0),
        img_size=(128, 128),
        patch_size=16,
        in_channels=3,
        with_cls_token=True,
        pre_norm=True,
        final_norm=True,
        qkv_bias=True,
    )
    whole = PUBLISHED.build_args(everything)
    assert {**settings, 'type': 'addp_mm.ADDPViT'}.items() <= whole['backbone'].items()
    assert not any('num_heads' in str(whole[part]) for part in ('backbone', 'neck', 'predictor'))
    bare = PUBLISHED_ENCODER.convert(
        {key: value for key, value in encoder.items() if not key.startswith(('tokenizer_norm.', 'norm.'))}
    )
    assert not vit_args(bare)['pre_norm']
    assert not vit_args(bare)['final_norm']


@pytest.mark.parametrize('part', ['encoder', 'everything'])
@pytest.mark.parametrize(
    'stranger',
    [
        'blocks.0.gain',
        'decoder_blocks.0.gain',
        'vqgan.loss.weight',
        'token_predictor.vqgan.encoder.gain',
        'cls_pos_embed',
    ],
)
def test_unknown_keys_are_named_even_if_only_the_encoder_is_converted(encoder, everything, part, stranger):
    state = {**(encoder if part == 'encoder' else everything), stranger: torch.ones(1)}
    with pytest.raises(ValueError, match=rf'1 keys.*{stranger.replace("token_predictor.", "")}'):
        PUBLISHED_ENCODER.convert(state)


def test_an_incomplete_encoder_is_refused(encoder):
    with pytest.raises(ValueError, match='not a whole ADDP encoder: pos_embed missing'):
        PUBLISHED_ENCODER.convert({key: value for key, value in encoder.items() if key != 'pos_embed'})
    with pytest.raises(ValueError, match='two final norms'):
        PUBLISHED_ENCODER.convert({**encoder, 'fc_norm.weight': torch.ones(1)})
    long = {**encoder, 'pos_embed': torch.zeros(1, 1 + 60, 48)}
    with pytest.raises(ValueError, match='positions do not form a square map'):
        vit_args(PUBLISHED_ENCODER.convert(long))


# --- the tool
# ------------------------------------------------------------------------------------------------


def run_tool(monkeypatch, *arguments, tool=TOOL.name):
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
    runpy.run_path(str(TOOL.with_name(tool)), run_name='__main__')


def test_the_tool_converts_the_encoder(encoder, everything, tmp_path, monkeypatch, capsys):
    torch.save(dict(model=encoder, args=argparse.Namespace(blr=1e-4)), tmp_path / 'encoder.pth')
    torch.save(dict(model=everything), tmp_path / 'everything.pth')
    run_tool(monkeypatch, tmp_path / 'encoder.pth', tmp_path / 'a.safetensors', '--num-heads', '3')
    assert 'ADDPViT: ' in capsys.readouterr().out
    run_tool(monkeypatch, tmp_path / 'everything.pth', tmp_path / 'b.pth', '--part', 'encoder', '--num-heads', '3')
    assert 'features (1, 65, 48); the original implementation differs by ' in capsys.readouterr().out
    run_tool(monkeypatch, tmp_path / 'encoder.pth', tmp_path / 'c.pth', '--num-heads', '3', tool='vit.py')
    assert 'features (2, 65, 48); the original implementation differs by ' in capsys.readouterr().out
    for name in 'abc':
        backbone = MODELS.build(Config.fromfile(tmp_path / f'{name}.json').backbone)
        backbone.init_weights()
        assert all(
            torch.equal(backbone.state_dict()[key], value) for key, value in PUBLISHED_ENCODER.convert(encoder).items()
        )


def test_the_tool_converts_everything_with_a_config_for_generation(everything, tmp_path, monkeypatch, capsys):
    torch.save(dict(model=everything), tmp_path / 'published.pth')
    heads = (
        '--num-heads',
        '3',
        '--decoder-num-heads',
        '4',
        '--predictor-num-heads',
        '4',
        '--predictor-decoder-num-heads',
        '4',
    )
    run_tool(monkeypatch, tmp_path / 'published.pth', tmp_path / 'addp.safetensors', *heads)
    assert 'ADDP: ' in capsys.readouterr().out
    model = load_model(str(tmp_path / 'addp.json'), tmp_path / 'addp.safetensors')
    assert all(torch.equal(model.state_dict()[key], value) for key, value in convert_published(everything).items())
    assert json.loads((tmp_path / 'addp.json').read_text())['model']['neck']['num_heads'] == 4
    with pytest.raises(SystemExit, match='width 48: give num_heads .on the command line --num-heads'):
        run_tool(monkeypatch, tmp_path / 'published.pth', tmp_path / 'other.safetensors')


@pytest.mark.parametrize(
    'part, what, change',
    [
        ('encoder', 'features', ('layers.OriginalLayers.layer_norm', lambda self, name, x, eps=0: x)),
        ('all', 'target', ('mage.FAKE_CLASS_SLOT', 0)),
    ],
)
def test_the_tool_writes_nothing_if_the_results_disagree(everything, tmp_path, monkeypatch, part, what, change):
    torch.save(dict(model=everything), tmp_path / 'published.pth')
    monkeypatch.setattr(f'addp_mm.conversion.originals.{change[0]}', change[1])
    with pytest.raises(SystemExit, match=rf'disagree: .*{what} by .*\. Nothing was written'):
        run_tool(
            monkeypatch,
            tmp_path / 'published.pth',
            tmp_path / 'out.pth',
            '--part',
            part,
            '--num-heads',
            '3',
            '--decoder-num-heads',
            '4',
            '--predictor-num-heads',
            '4',
            '--predictor-decoder-num-heads',
            '4',
        )
    assert [path.name for path in tmp_path.iterdir()] == ['published.pth']


def test_published_args_name_every_component(everything):
    assert set(published_args(convert_published(everything))) == {
        'tokenizer',
        'predictor',
        'backbone',
        'neck',
        'head',
        'data_preprocessor',
    }
