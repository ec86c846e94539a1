# Copyright (c) addp_mm contributors. Apache-2.0.
"""Load and convert checkpoints in the published layout; every key is known."""

import argparse
import runpy
import sys
from pathlib import Path

import pytest
import torch
from helpers import published_reference as pr
from safetensors.torch import load_file

from addp_mm.apis import load_published
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.layouts.published import convert_published, published_settings

TOOL = Path(__file__).parents[2] / 'tools' / 'model_converters' / 'published_addp.py'


@pytest.fixture(scope='module')
def checkpoint():
    return pr.published_checkpoint(pr.read_reference())


def test_every_key_is_used_or_listed_as_unused(checkpoint):
    converted = convert_published(checkpoint)
    model = load_published(checkpoint, **pr.HEADS)
    assert set(converted) == set(model.state_dict())
    assert model.unloaded_components() == []
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, converted[name]), name
        assert value.dtype == torch.float32, name


def test_sizes_are_read_from_the_tensors(checkpoint):
    model, config = load_published(checkpoint, **pr.HEADS), pr.read_reference().config
    assert model.backbone.patch_size == config['patch_size']
    assert len(model.backbone.blocks) == config['depth']
    assert model.backbone.grid_size == (8, 8)
    assert model.tokenizer.stride == 16
    assert model.head.token_space.vocab_size == config['vocab_size']
    assert model.head.token_space.fake_class_id == 1100
    assert len(model.neck.blocks) == config['decoder_depth']
    assert model.neck.blocks[0].attn.num_heads == 4
    assert model.predictor.blocks[0].attn.num_heads == model.predictor.decoder_blocks[0].attn.num_heads == 4
    other = load_published(checkpoint, **{**pr.HEADS, 'predictor_num_heads': 2}, predictor_decoder_num_heads=8)
    assert other.predictor.blocks[0].attn.num_heads == 2
    assert other.predictor.decoder_blocks[0].attn.num_heads == 8


def test_heads_follow_from_a_published_width_and_are_named_for_others(checkpoint):
    with pytest.raises(ValueError, match='width 48: give num_heads'):
        load_published(checkpoint)
    with pytest.raises(ValueError, match='give predictor_num_heads'):
        load_published(checkpoint, num_heads=3, decoder_num_heads=4)
    converted = convert_published(checkpoint)
    converted['backbone.patch_embed.projection.weight'] = torch.empty(768, 3, 8, 8, device='meta')
    converted['neck.embed.weight'] = torch.empty(1024, 768, device='meta')
    settings = published_settings(converted, predictor_num_heads=4, predictor_decoder_num_heads=2)
    assert settings['backbone']['arch']['num_heads'] == 12
    assert settings['neck']['num_heads'] == 16
    assert (settings['predictor']['num_heads'], settings['predictor']['decoder_num_heads']) == (4, 2)


def test_a_tokenizer_stored_with_the_predictor_alone_is_found(checkpoint):
    alone = {key: value for key, value in checkpoint.items() if not key.startswith('vqgan.')}
    assert set(convert_published(alone)) == set(convert_published(checkpoint))


def test_two_different_tokenizers_are_refused(checkpoint):
    key = 'token_predictor.vqgan.quantize.embedding.weight'
    with pytest.raises(ValueError, match='two different tokenizers'):
        convert_published({**checkpoint, key: checkpoint[key] + 1})


def test_unknown_keys_are_listed(checkpoint):
    with pytest.raises(ValueError, match=r'2 keys.*blocks\.0\.gain, vqgan\.loss\.weight'):
        convert_published({**checkpoint, 'blocks.0.gain': torch.ones(1), 'vqgan.loss.weight': torch.ones(1)})


@pytest.mark.parametrize(
    'part, name', [('vqgan.', 'tokenizer'), ('token_predictor.', 'predictor'), ('decoder_', 'neck')]
)
def test_a_missing_component_is_named(checkpoint, part, name):
    rest = {key: value for key, value in checkpoint.items() if not key.startswith(part) and f'.{part}' not in key}
    with pytest.raises(ValueError, match=name):
        convert_published(rest)


def test_a_missing_tensor_is_named(checkpoint):
    for key, name in (
        ('blocks.1.norm1.weight', 'backbone.blocks.1.norm1.weight'),
        ('token_predictor.norm.bias', 'norm.bias'),
    ):
        with pytest.raises(RuntimeError, match=name.replace('.', r'\.')):
            load_published({k: v for k, v in checkpoint.items() if k != key}, **pr.HEADS)


def test_a_training_checkpoint_is_read_from_its_file(checkpoint, tmp_path):
    path = tmp_path / 'checkpoint-latest.pth'
    torch.save(dict(model=checkpoint, epoch=3, args=argparse.Namespace(lr=1e-4)), path)
    model = load_published(path, **pr.HEADS)
    assert torch.equal(model.backbone.cls_token, checkpoint['cls_token'].float())


def test_files_that_are_not_checkpoints_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_published(tmp_path / 'none.pth', **pr.HEADS)
    path = tmp_path / 'image.pth'
    path.write_bytes(b'no checkpoint at all')
    with pytest.raises(CheckpointError, match='image.pth'):
        load_published(path, **pr.HEADS)


def convert(monkeypatch, *arguments):
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
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments), *heads])
    runpy.run_path(str(TOOL), run_name='__main__')


def test_the_converter_writes_what_the_model_loads(checkpoint, tmp_path, monkeypatch, capsys):
    torch.save(dict(model=checkpoint), tmp_path / 'published.pth')
    convert(monkeypatch, tmp_path / 'published.pth', tmp_path / 'addp.safetensors')
    convert(monkeypatch, tmp_path / 'published.pth', tmp_path / 'other.pth')
    assert 'wrote ' in capsys.readouterr().out
    model = pr.load(pr.read_reference())
    for weights in (
        load_file(tmp_path / 'addp.safetensors'),
        torch.load(tmp_path / 'other.pth', weights_only=True)['state_dict'],
    ):
        model.load_state_dict(weights, strict=True)
    with pytest.raises(SystemExit, match='exists: choose'):
        convert(monkeypatch, tmp_path / 'published.pth', tmp_path / 'other.pth')


def test_the_converter_leaves_nothing_behind_when_it_fails(checkpoint, tmp_path, monkeypatch):
    torch.save({**checkpoint, 'stranger': torch.ones(1)}, tmp_path / 'published.pth')
    with pytest.raises(SystemExit, match='stranger'):
        convert(monkeypatch, tmp_path / 'published.pth', tmp_path / 'addp.pth')
    with pytest.raises(SystemExit, match='must end in'):
        convert(monkeypatch, tmp_path / 'published.pth', tmp_path / 'addp.bin')
    assert [path.name for path in tmp_path.iterdir()] == ['published.pth']
