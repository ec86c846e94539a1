# Copyright (c) addp_mm contributors. Apache-2.0.
"""Converted MAGE checkpoints, compared with the original network, and the converter."""

import json
import runpy
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from helpers import random_mage as mage
from helpers import random_vqgan as vqgan
from mmengine.config import Config

import addp_mm
from addp_mm.conversion.originals.mage import predicted_probabilities
from addp_mm.conversion.originals.vqgan import OriginalVQGAN
from addp_mm.layouts import find_layout
from addp_mm.layouts.key_rules import without_prefix
from addp_mm.layouts.mage import MAGE, convert_mage, heads_of, predictor_args
from addp_mm.layouts.vqgan import MASKGIT
from addp_mm.models.predictors import MaskedTokenPredictor
from addp_mm.models.tokenizers import VQTokenizer
from addp_mm.registry import MODELS

TOOL = Path(addp_mm.__file__).parents[1] / 'tools/model_converters/mage.py'
HEADS = dict(num_heads=mage.HEADS, decoder_num_heads=mage.DECODER_HEADS)
VQGAN = vqgan.Sizes(taming=False, mults=(1, 1), attn_levels=(), codes=mage.CODES)


@pytest.fixture(scope='module')
def checkpoint():
    torch.manual_seed(0)
    tokenizer = {f'vqgan.{key}': value for key, value in vqgan.random_state_dict(VQGAN).items()}
    return {**mage.random_state_dict(), **tokenizer}


@torch.no_grad()
def test_the_predictor_equals_the_original_network(checkpoint):
    predictor = MaskedTokenPredictor(**MAGE.build_args(checkpoint), **HEADS).eval()
    predictor.load_state_dict(convert_mage(checkpoint), strict=True)
    ids, mask = torch.randint(mage.CODES, (3, mage.LENGTH)), torch.rand(3, mage.LENGTH) < 0.5
    expected = predicted_probabilities(checkpoint, ids, mask, **HEADS)
    assert expected.std(dim=0).max() > 0.1  # the result depends on the ids
    torch.testing.assert_close(predictor(ids, mask), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_tokenizer_in_the_file_equals_the_original_network(checkpoint):
    part = without_prefix(checkpoint, 'vqgan.')
    tokenizer = VQTokenizer(**MASKGIT.build_args(part)).eval()
    tokenizer.load_state_dict(MASKGIT.convert(part), strict=True)
    images = torch.rand(2, 3, 16, 16)
    latents, distances = OriginalVQGAN(checkpoint, taming=False, prefix='vqgan.').encode(images)
    torch.testing.assert_close(tokenizer.encode_continuous(images), latents, atol=1e-5, rtol=1e-5)
    assert torch.equal(tokenizer.encode(images)[0], distances.argmin(-1))


def test_sizes_are_read_from_the_tensors(checkpoint):
    space = dict(codebook_size=12, num_class_slots=1000, fake_class_slot=76)
    assert MAGE.build_args(checkpoint) == dict(
        num_tokens=9,
        embed_dims=24,
        num_layers=2,
        decoder_embed_dims=16,
        decoder_num_layers=1,
        mlp_ratio=4.0,
        token_space=space,
    )
    alone = {key: value for key, value in checkpoint.items() if not key.startswith('vqgan.')}
    assert MAGE.build_args(alone)['token_space'] == space
    assert find_layout(checkpoint) is MAGE
    assert find_layout(alone) is MAGE
    with pytest.raises(ValueError, match='1013 words is too small for 1000 codes'):
        predictor_args(convert_mage(alone), codebook_size=1000)


@pytest.mark.parametrize('stranger', ['blocks.0.gain', 'vqgan.loss.weight', 'token_predictor.norm.weight', 'head.bias'])
def test_unknown_keys_are_named(checkpoint, stranger):
    with pytest.raises(ValueError, match=rf'1 keys.*{stranger}'):
        convert_mage({**checkpoint, stranger: torch.ones(1)})


def test_an_incomplete_predictor_is_refused(checkpoint):
    rest = {key: value for key, value in checkpoint.items() if key != 'decoder_embed.weight'}
    with pytest.raises(ValueError, match=r'not a whole MAGE checkpoint: decoder_embed\.weight missing'):
        convert_mage(rest)


def test_heads_must_be_given_for_an_unpublished_width():
    assert [heads_of(768, None, ''), heads_of(768, None, '', decoder=True), heads_of(1024, None, '')] == [12, 16, 16]
    assert heads_of(768, 6, '') == 6
    with pytest.raises(ValueError, match='width 24: give num_heads'):
        heads_of(24, None, 'num_heads')
    with pytest.raises(ValueError, match='num_heads: the width 24 is not a multiple of 5 heads'):
        heads_of(24, 5, 'num_heads')


def test_both_components_load_from_the_file_without_the_tool(checkpoint, tmp_path):
    torch.save(dict(model=checkpoint), tmp_path / 'mage.pth')
    loads_it = dict(type='addp_mm.Pretrained', checkpoint=str(tmp_path / 'mage.pth'), strict=True)
    predictor = MaskedTokenPredictor(**MAGE.build_args(checkpoint), **HEADS, init_cfg=loads_it)
    part = without_prefix(checkpoint, 'vqgan.')
    tokenizer = VQTokenizer(**MASKGIT.build_args(part), init_cfg=dict(loads_it, prefix='vqgan.'))
    for module, converted in ((predictor, convert_mage(checkpoint)), (tokenizer, MASKGIT.convert(part))):
        module.init_weights()
        assert all(torch.equal(module.state_dict()[name], value) for name, value in converted.items())


# --- the tool
# ------------------------------------------------------------------------------------------------


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


def test_the_tool_writes_either_part_with_a_config_that_loads_it(checkpoint, tmp_path, monkeypatch, capsys):
    torch.save(dict(model=checkpoint, epoch=9, args=Namespace(blr=1e-3)), tmp_path / 'mage.pth')
    run_tool(
        monkeypatch,
        tmp_path / 'mage.pth',
        tmp_path / 'predictor.safetensors',
        '--num-heads',
        '3',
        '--decoder-num-heads',
        '2',
    )
    assert 'probabilities (1, 9, 12)' in capsys.readouterr().out
    run_tool(monkeypatch, tmp_path / 'mage.pth', tmp_path / 'tokenizer.pth', '--part', 'tokenizer')
    said = capsys.readouterr().out
    assert 'reconstructions (1, 3, 8, 8); the original implementation differs by ' in said
    converted = dict(
        predictor=convert_mage(checkpoint), tokenizer=MASKGIT.convert(without_prefix(checkpoint, 'vqgan.'))
    )
    for part in converted:
        module = MODELS.build(Config.fromfile(tmp_path / f'{part}.json')[part])
        module.init_weights()
        weights = module.state_dict()
        assert all(torch.equal(weights[name], value) for name, value in converted[part].items())
    assert json.loads((tmp_path / 'predictor.json').read_text())['predictor']['decoder_num_heads'] == 2


@pytest.mark.parametrize(
    'part, change',
    [
        ('predictor', ('addp_mm.conversion.originals.mage.FAKE_CLASS_SLOT', 0)),
        (
            'tokenizer',
            ('addp_mm.conversion.originals.vqgan.OriginalVQGAN._halved', lambda self, name, x: x[..., ::2, ::2]),
        ),
    ],
)
def test_the_tool_writes_nothing_if_the_results_disagree(checkpoint, tmp_path, monkeypatch, part, change):
    torch.save(dict(model=checkpoint), tmp_path / 'mage.pth')
    monkeypatch.setattr(*change)
    with pytest.raises(SystemExit, match=r'disagree: .*\. Nothing was written'):
        run_tool(
            monkeypatch,
            tmp_path / 'mage.pth',
            tmp_path / 'out.pth',
            '--part',
            part,
            '--num-heads',
            '3',
            '--decoder-num-heads',
            '2',
        )
    assert [path.name for path in tmp_path.iterdir()] == ['mage.pth']


def test_the_tool_needs_the_number_of_heads(checkpoint, tmp_path, monkeypatch):
    torch.save(dict(model=checkpoint), tmp_path / 'mage.pth')
    with pytest.raises(SystemExit, match='width 24: give num_heads'):
        run_tool(monkeypatch, tmp_path / 'mage.pth', tmp_path / 'predictor.safetensors')
    assert [path.name for path in tmp_path.iterdir()] == ['mage.pth']
