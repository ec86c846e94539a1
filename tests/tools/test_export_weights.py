# Copyright (c) addp_mm contributors. Apache-2.0.
import hashlib
import json
import os
import runpy
import stat
from pathlib import Path
from unittest.mock import ANY

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from addp_mm.checkpoints.reading import load_checkpoint_file

TOOL = Path(__file__).parents[2] / 'tools/model_converters/export_weights.py'


def export(*args):
    runpy.run_path(str(TOOL))['main'](list(map(str, args)))


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'iter_1.pth'
    state = {'tokenizer.conv.weight': torch.rand(2, 3), 'tokenizer.steps': torch.tensor(7), 'head.bias': torch.rand(2)}
    torch.save(dict(state_dict=state, meta={}), path)
    return path, state


def test_exports_a_prefix_in_half_precision(checkpoint, tmp_path, capsys):
    path, state = checkpoint
    export(path, tmp_path / 'out.safetensors', '--prefix', 'tokenizer.', '--half')
    tensors = load_file(tmp_path / 'out.safetensors')
    assert set(tensors) == {'conv.weight', 'steps'}
    assert torch.equal(tensors['conv.weight'], state['tokenizer.conv.weight'].half())
    assert tensors['steps'] == 7
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report['sha256'] == hashlib.sha256((tmp_path / 'out.safetensors').read_bytes()).hexdigest()


def test_drops_by_prefix(checkpoint, tmp_path):
    path, _ = checkpoint
    export(path, tmp_path / 'out.safetensors', '--drop', 'tokenizer.')
    assert set(load_file(tmp_path / 'out.safetensors')) == {'head.bias'}


@pytest.mark.parametrize(
    'options, words',
    [
        (['--prefix', 'backbone.'], r'backbone.* matches no key.*prefixes head\., tokenizer\.'),
        (['--drop', 'neck.'], "'neck.' matches no key"),
    ],
)
def test_a_prefix_that_matches_nothing_is_named(checkpoint, tmp_path, options, words):
    path, _ = checkpoint
    with pytest.raises(SystemExit, match=f'error: .*{words}'):
        export(path, tmp_path / 'out.safetensors', *options)
    assert not (tmp_path / 'out.safetensors').exists()


@pytest.mark.parametrize(
    'name, options, words',
    [
        ('out.pth', [], r'error: .*out.pth must end in .safetensors'),
        ('there.safetensors', [], r'error: .*there.safetensors exists:'),
        ('out.safetensors', ['--meta', 'a'], "error: --meta must be KEY=VALUE, got 'a'"),
    ],
)
def test_refused_options_are_named_and_nothing_is_written(checkpoint, tmp_path, name, options, words):
    (tmp_path / 'there.safetensors').write_text('mine')
    with pytest.raises(SystemExit, match=words):
        export(checkpoint[0], tmp_path / name, *options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['iter_1.pth', 'there.safetensors']
    assert (tmp_path / 'there.safetensors').read_text() == 'mine'


def test_tied_weights_are_written_twice(tmp_path):
    weight = torch.rand(4, 3)
    state = {'embed.weight': weight, 'head.weight': weight, 'head.part': weight[1:]}
    torch.save(dict(state_dict=state), tmp_path / 'tied.pth')
    export(tmp_path / 'tied.pth', tmp_path / 'out.safetensors')
    written = load_file(tmp_path / 'out.safetensors')
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key], value) for key, value in state.items())


def test_the_file_has_the_usual_permissions(checkpoint, tmp_path):
    before = os.umask(0o027)
    try:
        export(checkpoint[0], tmp_path / 'out.safetensors')
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / 'out.safetensors').stat().st_mode) == 0o640


def test_overwrites_on_request(checkpoint, tmp_path):
    for name in ('out.safetensors', 'out.partial'):
        (tmp_path / name).write_text('mine')
    export(checkpoint[0], tmp_path / 'out.safetensors', '--overwrite', '--meta', 'a=b=c')
    with safe_open(tmp_path / 'out.safetensors', 'pt') as file:
        assert file.metadata() == dict(a='b=c', crc32=ANY)  # the checksum of the content
    assert (tmp_path / 'out.partial').read_text() == 'mine'


def test_a_whole_model_keeps_its_classes_and_a_component_does_not(checkpoint, tmp_path):
    path, state = checkpoint
    meta = dict(dataset_meta=dict(classes=('bag', 'coat')), epoch=3)
    torch.save(dict(state_dict=state, meta=meta), path)
    export(path, tmp_path / 'whole.safetensors', '--meta', 'made_by=me')
    export(path, tmp_path / 'part.safetensors', '--prefix', 'tokenizer.')
    read = {name: load_checkpoint_file(tmp_path / f'{name}.safetensors')['meta'] for name in ('whole', 'part')}
    assert read == dict(whole=dict(dataset_meta=dict(classes=['bag', 'coat']), made_by='me'), part={})
    export(tmp_path / 'whole.safetensors', tmp_path / 'again.safetensors')
    assert load_checkpoint_file(tmp_path / 'again.safetensors')['meta'] == dict(
        dataset_meta=dict(classes=['bag', 'coat'])
    )
