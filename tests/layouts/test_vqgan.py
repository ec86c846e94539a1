# Copyright (c) addp_mm contributors. Apache-2.0.
"""Converted VQGANs, compared with the original network, and the command line tool."""

import json
import runpy
import sys
import types
from pathlib import Path

import pytest
import torch
from helpers.random_vqgan import Sizes, random_state_dict
from mmengine.config import Config
from safetensors.torch import load_file

import addp_mm
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.conversion.originals.vqgan import OriginalVQGAN
from addp_mm.layouts import find_layout
from addp_mm.layouts.vqgan import MASKGIT, TAMING, convert_maskgit, convert_taming, tokenizer_args
from addp_mm.models.tokenizers import VQTokenizer
from addp_mm.registry import MODELS

TOOL = Path(addp_mm.__file__).parents[1] / 'tools/model_converters/vqgan.py'
TAMING_SIZES = Sizes()
MASKGIT_SIZES = Sizes(taming=False, mults=(1, 2, 2), blocks=2, attn_levels=())


def made(sizes):
    torch.manual_seed(0)
    return random_state_dict(sizes)


def converted_tokenizer(layout, state):
    tokenizer = VQTokenizer(**layout.build_args(state)).eval()
    tokenizer.load_state_dict(layout.convert(state), strict=True)
    return tokenizer


@pytest.fixture(scope='module')
def taming():
    return made(TAMING_SIZES)


@pytest.fixture(scope='module')
def maskgit():
    return made(MASKGIT_SIZES)


@torch.no_grad()
@pytest.mark.parametrize(
    'layout, sizes',
    [
        (TAMING, TAMING_SIZES),
        (TAMING, Sizes(mults=(1, 2), blocks=2, attn_levels=(0, 1))),
        (TAMING, Sizes(mults=(1, 1), attn_levels=())),
        (MASKGIT, MASKGIT_SIZES),
    ],
)
def test_conversion_equals_the_original_network(layout, sizes):
    state = made(sizes)
    tokenizer = converted_tokenizer(layout, state)
    original = OriginalVQGAN(state, sizes.taming, (-1, 1) if sizes.taming else (0, 1))
    images = torch.rand(2, 3, 16, 24)
    latents, distances = original.encode(images)
    ids = distances.argmin(-1)
    assert len(ids.unique()) > 2
    torch.testing.assert_close(tokenizer.encode_continuous(images), latents, atol=1e-5, rtol=1e-5)
    our_ids, codes = tokenizer.encode(images)
    assert torch.equal(our_ids, ids)
    torch.testing.assert_close(tokenizer.decode(codes), original.decode(codes), atol=1e-5, rtol=1e-5)


def test_sizes_are_read_from_the_tensors(taming, maskgit):
    assert TAMING.build_args(taming) == dict(
        base_channels=32,
        channel_mults=(1, 1, 2),
        codebook_size=16,
        embed_dims=5,
        in_channels=3,
        num_res_blocks=1,
        num_mid_blocks=2,
        decoder_res_blocks=2,
        shortcut_from='input',
        conv_bias=True,
        downsample='conv',
        attn_levels=(2,),
        mid_attn=True,
        encoder_out_kernel=3,
        quant_conv=True,
        z_channels=6,
        input_range=(-1.0, 1.0),
        num_groups=32,
    )
    assert MASKGIT.build_args(maskgit) == dict(
        base_channels=32,
        channel_mults=(1, 2, 2),
        codebook_size=16,
        embed_dims=6,
        in_channels=3,
        num_res_blocks=2,
        num_mid_blocks=2,
        decoder_res_blocks=2,
        shortcut_from='output',
        conv_bias=False,
        downsample='avg',
        attn_levels=(),
        mid_attn=False,
        encoder_out_kernel=1,
        quant_conv=False,
        z_channels=None,
        input_range=(0.0, 1.0),
        num_groups=32,
    )


def test_the_layout_follows_from_the_keys(taming, maskgit):
    assert find_layout(taming) is TAMING
    assert find_layout(maskgit) is MASKGIT
    assert find_layout(convert_taming(taming)) is None


def test_tensors_of_training_are_left_out_by_name(taming):
    extra = {
        'loss.discriminator.main.0.weight': torch.ones(1),
        'loss.perceptual_loss.lin0.model.1.weight': torch.ones(1),
        'quantize.embedding.cluster_size': torch.ones(1),
        'colorize': torch.ones(1),
        'model_ema.decay': torch.ones(1),
        'model_ema.encoderconv_inweight': torch.ones(1),
    }
    assert set(convert_taming({**taming, **extra})) == set(convert_taming(taming))
    with pytest.raises(ValueError, match=r'2 keys.*quantize\.used, lost\.weight'):
        convert_taming({**taming, **extra, 'quantize.used': torch.ones(1), 'lost.weight': torch.ones(1)})


def test_taming_parts_in_maskgits_layout_are_unknown(maskgit):
    with pytest.raises(ValueError, match=r'1 keys.*loss\.logvar'):
        convert_maskgit({**maskgit, 'loss.logvar': torch.ones(1)})


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda s: s.pop('encoder.conv_out.weight'), r'encoder\.conv_out\.weight missing'),
        (lambda s: s.update({'quantize.proj.weight': torch.ones(1)}), 'Gumbel'),
    ],
)
def test_an_incomplete_vqgan_is_refused(taming, change, words):
    state = dict(taming)
    change(state)
    with pytest.raises(ValueError, match=words):
        convert_taming(state)


@pytest.mark.parametrize('width', [16, 64])
def test_sizes_that_no_tokenizer_has_are_refused(taming, width):
    converted = {**convert_taming(taming), 'encoder.conv_in.weight': torch.ones(width, 3, 3, 3)}
    with pytest.raises(ValueError, match=rf'\[32, 32, 64\] channels, not multiples of the {width}'):
        tokenizer_args(converted)


def test_an_original_file_loads_without_the_tool(taming, tmp_path):
    torch.save(dict(state_dict={**taming, 'loss.logvar': torch.zeros(1)}), tmp_path / 'last.ckpt')
    loads_it = dict(type='addp_mm.Pretrained', checkpoint=str(tmp_path / 'last.ckpt'), strict=True)
    tokenizer = VQTokenizer(**TAMING.build_args(taming), init_cfg=loads_it)
    tokenizer.init_weights()
    assert all(torch.equal(tokenizer.state_dict()[name], value) for name, value in convert_taming(taming).items())


# --- the tool
# ------------------------------------------------------------------------------------------------


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    return runpy.run_path(str(TOOL), run_name='__main__')


def test_the_tool_writes_weights_and_a_config_that_loads_them(taming, tmp_path, monkeypatch, capsys):
    torch.save(dict(state_dict={**taming, 'loss.logvar': torch.zeros(1)}, epoch=3), tmp_path / 'last.ckpt')
    run_tool(monkeypatch, tmp_path / 'last.ckpt', tmp_path / 'vqgan.safetensors')
    said = capsys.readouterr().out
    assert '1 unused' in said
    assert 'stride 4' in said
    assert 'reconstructions (1, 3, 16, 16)' in said
    tokenizer = MODELS.build(Config.fromfile(tmp_path / 'vqgan.json').tokenizer)
    tokenizer.init_weights()
    for name, value in convert_taming(taming).items():
        assert torch.equal(tokenizer.state_dict()[name], value), name
    (tmp_path / 'child.py').write_text("_base_ = 'vqgan.json'\nmodel = dict(tokenizer=_base_.tokenizer)\n")
    assert Config.fromfile(tmp_path / 'child.py').model.tokenizer.input_range == [-1.0, 1.0]


def test_the_config_finds_its_weights_from_any_folder(maskgit, tmp_path, monkeypatch):
    torch.save(maskgit, tmp_path / 'in.pth')
    monkeypatch.chdir(tmp_path)
    run_tool(monkeypatch, 'in.pth', 'made/out.safetensors')
    (tmp_path / 'made').rename(tmp_path / 'moved')
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'child.py').write_text("_base_ = '../moved/out.json'\n")
    monkeypatch.chdir(tmp_path / 'configs')
    tokenizer = MODELS.build(Config.fromfile('child.py').tokenizer)
    tokenizer.init_weights()
    assert torch.equal(tokenizer.codes.weight, maskgit['quantize.embedding.weight'])


def test_the_tool_takes_a_prefix_and_options(maskgit, tmp_path, monkeypatch):
    state = {f'first_stage_model.{key}': value for key, value in maskgit.items()}
    torch.save({**state, 'transformer.weight': torch.ones(1)}, tmp_path / 'model.pth')
    for given in ([], ['--prefix', 'other']):
        with pytest.raises(SystemExit, match=r"MaskGIT VQGAN under the prefix 'first_stage_model\.'"):
            run_tool(monkeypatch, tmp_path / 'model.pth', tmp_path / 'out.pth', *given)
    run_tool(
        monkeypatch,
        tmp_path / 'model.pth',
        tmp_path / 'out.pth',
        '--prefix',
        'first_stage_model',
        '--input-range',
        '-1',
        '1',
        '--num-groups',
        '16',
    )
    config = json.loads((tmp_path / 'out.json').read_text())['tokenizer']
    assert config['input_range'] == [-1.0, 1.0]
    assert config['num_groups'] == 16
    assert set(torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']) == set(convert_maskgit(maskgit))


def save_with_class(path, state, module, name, monkeypatch):
    """A checkpoint with a class of another package as a key, as in old Lightning files."""
    with monkeypatch.context() as patch:
        for depth in range(1, 1 + len(module.split('.'))):
            patch.setitem(sys.modules, '.'.join(module.split('.')[:depth]), types.ModuleType(module))
        kind = type(name, (), dict(__module__=module))
        setattr(sys.modules[module], name, kind)
        torch.save(dict(state_dict=state, callbacks={kind: dict(best_model_path='x')}), path)


def test_only_lightnings_checkpoint_class_is_read_as_a_name(taming, tmp_path, monkeypatch):
    read = runpy.run_path(str(TOOL), run_name='tool')['read']
    path = tmp_path / 'old.ckpt'
    save_with_class(path, taming, 'pytorch_lightning.callbacks.model_checkpoint', 'ModelCheckpoint', monkeypatch)
    before = torch.serialization.get_safe_globals()
    assert set(read(str(path))[0]) == set(taming)
    assert 'pytorch_lightning' not in sys.modules
    assert set(torch.serialization.get_safe_globals()) == set(before)
    save_with_class(path, taming, 'pytorch_lightning.callbacks.model_checkpoint', 'Trainer', monkeypatch)
    with pytest.raises(CheckpointError, match=r'old\.ckpt is refused.*model_checkpoint\.Trainer'):
        read(str(path))


@pytest.mark.parametrize(
    'state, arguments, words',
    [
        ({'a.weight': torch.ones(1)}, [], 'has no VQGAN'),
        ('maskgit', ['--prefix', 'model'], r'has no VQGAN under model\.: .*layout of MaskGIT VQGAN without a prefix'),
        ('maskgit', ['--num-groups', '48'], 'multiple of num_groups=48'),
        ('stranger', [], 'stranger'),
        ('incomplete', [], r'does not fit VQTokenizer: missing encoder\.norm_out\.weight'),
        ('damaged', [], 'NaN or Inf'),
    ],
)
def test_the_tool_names_the_error_and_writes_nothing(maskgit, tmp_path, monkeypatch, state, arguments, words):
    if state == 'incomplete':
        state = {key: value for key, value in maskgit.items() if 'norm_out' not in key}
    elif isinstance(state, str):
        state = {
            **maskgit,
            **({'stranger': torch.ones(1)} if state == 'stranger' else {}),
            **({'decoder.conv_in.bias': torch.full((64,), torch.nan)} if state == 'damaged' else {}),
        }
    torch.save(state, tmp_path / 'in.pth')
    with pytest.raises(SystemExit, match=words):
        run_tool(monkeypatch, tmp_path / 'in.pth', tmp_path / 'out.safetensors', *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ['in.pth']


@pytest.mark.parametrize(
    'present, dst, words',
    [
        ('out.pth', 'out.pth', r'out\.pth exists:'),
        ('out.json', 'out.pth', r'out\.json exists:'),
        ('in.pth', 'out.bin', 'must end in'),
    ],
)
def test_the_tool_overwrites_nothing(tmp_path, monkeypatch, present, dst, words):
    (tmp_path / present).write_text('mine')
    with pytest.raises(SystemExit, match=words):
        run_tool(monkeypatch, tmp_path / 'in.pth', tmp_path / dst)
    assert (tmp_path / present).read_text() == 'mine'


def test_safetensors_have_the_same_weights(maskgit, tmp_path, monkeypatch):
    torch.save(maskgit, tmp_path / 'in.pth')
    run_tool(monkeypatch, tmp_path / 'in.pth', tmp_path / 'sub' / 'out.safetensors')
    written = load_file(tmp_path / 'sub' / 'out.safetensors')
    expected = convert_maskgit(maskgit)
    assert set(written) == set(expected)
    assert all(torch.equal(written[key], expected[key]) for key in written)
