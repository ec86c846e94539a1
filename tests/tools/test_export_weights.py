# Copyright (c) addp_mm contributors. Apache-2.0.
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

TOOL = Path(__file__).parents[2] / 'tools/model_converters/export_weights.py'


def export(*args):
    return subprocess.run([sys.executable, TOOL, *map(str, args)], capture_output=True, text=True)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'iter_1.pth'
    state = {'tokenizer.conv.weight': torch.rand(2, 3), 'tokenizer.steps': torch.tensor(7), 'head.bias': torch.rand(2)}
    torch.save(dict(state_dict=state, meta={}), path)
    return path, state


def test_exports_a_prefix_in_half_precision(checkpoint, tmp_path):
    path, state = checkpoint
    done = export(path, tmp_path / 'out.safetensors', '--prefix', 'tokenizer.', '--half')
    assert done.returncode == 0, done.stderr
    tensors = load_file(tmp_path / 'out.safetensors')
    assert set(tensors) == {'conv.weight', 'steps'}
    assert torch.equal(tensors['conv.weight'], state['tokenizer.conv.weight'].half())
    assert tensors['steps'] == 7
    report = json.loads(done.stdout.splitlines()[-1])
    assert report['sha256'] == hashlib.sha256((tmp_path / 'out.safetensors').read_bytes()).hexdigest()


def test_drops_by_prefix(checkpoint, tmp_path):
    path, _ = checkpoint
    assert export(path, tmp_path / 'out.safetensors', '--drop', 'tokenizer.').returncode == 0
    assert set(load_file(tmp_path / 'out.safetensors')) == {'head.bias'}


@pytest.mark.parametrize('options, words', [(['--prefix', 'backbone.'], "['head', 'tokenizer']"),
                                            (['--drop', 'neck.'], "'neck.' matches no key")])
def test_says_what_does_not_match(checkpoint, tmp_path, options, words):
    path, _ = checkpoint
    done = export(path, tmp_path / 'out.safetensors', *options)
    assert done.returncode != 0 and words in done.stderr
    assert not (tmp_path / 'out.safetensors').exists()
