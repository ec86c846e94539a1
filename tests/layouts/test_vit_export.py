# Copyright (c) addp_mm contributors. Apache-2.0.
"""ADDPViT as timm's VisionTransformer gives the same features, also without OpenMMLab."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from addp_mm.layouts.to_timm import architecture_of, timm_config, to_timm
from addp_mm.models.backbones import ADDPViT

TOOLS = Path(__file__).parents[2] / 'tools' / 'model_converters'
ARCH = dict(embed_dims=24, num_layers=2, num_heads=3, mlp_ratio=2.0)


def build(**options) -> ADDPViT:
    """A ViT with random weights throughout."""
    vit = ADDPViT(**{**dict(arch=ARCH, img_size=32, patch_size=8), **options}).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in vit.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.2, generator=generator)
    return vit


def tool(name: str):
    """A converter's module."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def close(actual, expected, atol=1e-5):
    assert expected.std() > 0.05
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@pytest.fixture
def image():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(pre_norm=True),
        dict(layer_scale_init=0.1, num_register_tokens=3),
        dict(out_type='avg_featmap'),
        dict(out_type='raw', with_cls_token=False),
        dict(out_type='raw', final_norm=False, qkv_bias=False),
        dict(out_type='raw', use_abs_pos=False),
    ],
)
def test_timm_gives_the_same_features(options, image):
    vit = build(**options)
    weights, kwargs = to_timm(vit.state_dict(), 3, (32, 32), vit.out_type)
    model = timm.create_model(architecture_of(kwargs), **kwargs).eval()
    model.load_state_dict(weights, strict=True)
    close(model(image), vit(image)[0])


@pytest.mark.parametrize('options', [dict(), dict(pre_norm=True, num_register_tokens=2)])
def test_maps_at_another_size(options):
    vit = build(**options, out_type='featmap', out_indices=(0, 1), final_norm=False, pos_antialias=True)
    weights, kwargs = to_timm(vit.state_dict(), 3, out_type='featmap')
    model = timm.create_model(architecture_of(kwargs), **kwargs).eval()
    model.load_state_dict(weights, strict=True)
    image = torch.rand(1, 3, 40, 64)
    expected = model.forward_intermediates(image, intermediates_only=True)
    for ours, theirs in zip(vit(image), expected, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize(
    'options,message',
    [
        (dict(use_rel_pos=True), 'decomposed relative positions .*rel_pos_h'),
        (dict(use_rel_pos_table=True), 'tables of relative positions .*rel_pos_bias_table'),
        (dict(with_cls_token=False, out_type='featmap'), "no class token: use out_type='avg_featmap'"),
    ],
)
def test_options_that_timm_does_not_have_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        to_timm(build(**options).state_dict(), 3)


def test_unknown_keys_and_outputs_are_refused():
    weights = build().state_dict()
    with pytest.raises(ValueError, match='stranger'):
        to_timm({**weights, 'stranger': torch.ones(1)}, 3)
    with pytest.raises(ValueError, match='no positions, so the image size is unknown'):
        to_timm(build(use_abs_pos=False).state_dict(), 3)
    with pytest.raises(ValueError, match="out_type must be one of .*'map'"):
        to_timm(weights, 3, out_type='map')


def test_the_config_is_json_and_says_how_to_prepare_images():
    _, kwargs = to_timm(build().state_dict(), 3)
    config = timm_config(kwargs, mean=(0.5,) * 3)
    assert json.loads(json.dumps(config)) == config
    assert config['num_features'] == 24
    assert config['pretrained_cfg']['mean'] == [0.5] * 3
    assert config['pretrained_cfg']['input_size'] == [3, 32, 32]
    assert config['architecture'] in timm.list_models()


ALONE = """
import sys, timm, torch
from safetensors.torch import load_file
model = timm.create_model('local-dir:exported', pretrained=True).eval()
data = load_file('features.safetensors')
with torch.no_grad():
    apart = (model(data['image']) - data['features']).abs().max().item()
assert not [name for name in sys.modules if name.startswith(('addp_mm', 'mmengine', 'mmcv', 'mmpretrain'))]
print(apart, model.num_features, timm.data.resolve_model_data_config(model)['mean'][0])
"""


@pytest.mark.slow
def test_an_exported_checkpoint_runs_in_plain_timm(tmp_path, image, capsys):
    vit = build(pre_norm=True, out_type='avg_featmap')
    checkpoint = {f'backbone.{key}': value for key, value in vit.state_dict().items()}
    torch.save(dict(state_dict={**checkpoint, 'head.fc.weight': torch.ones(1)}), tmp_path / 'classifier.pth')
    (tmp_path / 'config.py').write_text(
        f"model = dict(backbone=dict(type='addp_mm.ADDPViT', arch={ARCH}, img_size=32, patch_size=8, pre_norm=True, "
        "out_type='avg_featmap', init_cfg=dict(type='addp_mm.Pretrained', checkpoint='nowhere')))\n"
        'data_preprocessor = dict(mean=[127.5] * 3, std=[51.] * 3)'
    )
    tool('vit_to_timm').main(
        [str(tmp_path / 'classifier.pth'), str(tmp_path / 'exported'), '--config', str(tmp_path / 'config.py')]
    )
    assert 'local-dir:' in capsys.readouterr().out
    save_file(dict(image=image, features=vit(image)[0].detach()), tmp_path / 'features.safetensors')
    done = subprocess.run([sys.executable, '-c', ALONE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    apart, width, mean = done.stdout.split(maxsplit=2)
    assert float(apart) < 1e-5
    assert width == '24'
    assert float(mean) == 0.5


@pytest.mark.parametrize(
    'config,arguments,message',
    [
        (None, [], 'vit.json does not exist: give the config of the training as --config'),
        ('{"model": {}}', [], 'vit.json has no model.backbone of type addp_mm.ADDPViT'),
        ('{"backbone": {"type": "addp_mm.ADDPViT"}}', ['--prefix', 'model'], 'no model.patch_embed.projection.weight'),
    ],
)
def test_an_export_needs_a_config_and_a_backbone(tmp_path, config, arguments, message):
    save_file(build().state_dict(), tmp_path / 'vit.safetensors')
    if config:
        (tmp_path / 'vit.json').write_text(config)
    with pytest.raises(SystemExit, match=message):
        tool('vit_to_timm').main([str(tmp_path / 'vit.safetensors'), str(tmp_path / 'out'), *arguments])
    assert not (tmp_path / 'out').exists()


def test_windows_are_refused(tmp_path):
    options = dict(with_cls_token=False, out_type='featmap')
    save_file(build(**options).state_dict(), tmp_path / 'vit.safetensors')
    (tmp_path / 'config.py').write_text(
        f"backbone = dict(type='addp_mm.ADDPViT', arch={ARCH}, img_size=32, "
        "patch_size=8, window_size=2, with_cls_token=False, out_type='featmap')"
    )
    with pytest.raises(SystemExit, match='has window attention'):
        tool('vit_to_timm').main(
            [str(tmp_path / 'vit.safetensors'), str(tmp_path / 'out'), '--config', str(tmp_path / 'config.py')]
        )


def test_timm_to_addp_and_back_gives_the_same_file(tmp_path, capsys):
    model = timm.create_model('vit_tiny_patch16_224', depth=1, embed_dim=24, num_heads=3, img_size=32, num_classes=4)
    save_file(model.state_dict(), tmp_path / 'timm.safetensors')
    with pytest.raises(SystemExit, match='give --num-heads'):
        tool('vit').main([str(tmp_path / 'timm.safetensors'), str(tmp_path / 'addp.safetensors')])
    tool('vit').main([str(tmp_path / 'timm.safetensors'), str(tmp_path / 'addp.safetensors'), '--num-heads', '3'])
    assert 'the original implementation differs by' in capsys.readouterr().out
    tool('vit_to_timm').main([str(tmp_path / 'addp.safetensors'), str(tmp_path / 'back')])
    back = load_file(tmp_path / 'back' / 'model.safetensors')
    expected = {key: value for key, value in model.state_dict().items() if not key.startswith('head.')}
    assert back.keys() == expected.keys()
    assert all(torch.equal(back[key], expected[key]) for key in back)


def test_a_vit_within_a_larger_file(tmp_path, capsys):
    state = timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3).state_dict()
    torch.save(dict(model_ema={f'net.{key}': value for key, value in state.items()}), tmp_path / 'larger.ckpt')
    for given, words in (
        (['--prefix', 'ema'], r"under model_ema\. To load them, give prefix='model_ema\.'"),
        (['--prefix', 'model_ema'], r"layout of timm ViT under the prefix 'model_ema\.net\.'"),
    ):
        with pytest.raises(SystemExit, match=words):
            tool('vit').main([str(tmp_path / 'larger.ckpt'), str(tmp_path / 'vit.pth'), *given])
    tool('vit').main(
        [str(tmp_path / 'larger.ckpt'), str(tmp_path / 'vit.pth'), '--num-heads', '3', '--prefix', 'model_ema.net']
    )
    assert (
        f'timm ViT: {len(state)} tensors read\n17 positions, read as 4 x 4 patches and 1 before them'
        in capsys.readouterr().out
    )


def test_a_missing_weight_is_named(tmp_path):
    state = timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3).state_dict()
    del state['blocks.1.mlp.fc2.bias']
    save_file(state, tmp_path / 'vit.safetensors')
    with pytest.raises(SystemExit, match=r'does not fit ADDPViT: missing blocks\.1\.mlp\.fc2\.bias'):
        tool('vit').main([str(tmp_path / 'vit.safetensors'), str(tmp_path / 'out.pth'), '--num-heads', '3'])


def test_a_wrong_number_of_heads_is_refused(tmp_path):
    from timm.models.beit import Beit

    model = Beit(
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=1,
        num_heads=3,
        num_classes=0,
        use_abs_pos_emb=False,
        use_rel_pos_bias=True,
    )
    save_file(model.state_dict(), tmp_path / 'beit.safetensors')
    with pytest.raises(SystemExit, match='does not fit'):
        tool('vit').main([str(tmp_path / 'beit.safetensors'), str(tmp_path / 'a.safetensors'), '--num-heads', '4'])
    tool('vit').main([str(tmp_path / 'beit.safetensors'), str(tmp_path / 'a.safetensors')])
    config = json.loads((tmp_path / 'a.json').read_text())['backbone']
    assert config['arch']['num_heads'] == 3
    assert config['use_rel_pos_table']


def test_the_image_size_decides_how_positions_are_read(tmp_path, capsys):
    """A class token and 3 x 5 patches have as many positions as the 4 x 4 patches of a DeiT III."""
    sizes = dict(patch_size=8, embed_dim=24, depth=2, num_heads=3)
    save_file(timm.models.VisionTransformer(**sizes, img_size=(24, 40)).state_dict(), tmp_path / 'vit.safetensors')
    tool('vit').main(
        [str(tmp_path / 'vit.safetensors'), str(tmp_path / 'wide.pth'), '--num-heads', '3', '--img-size', '24', '40']
    )
    assert 'features (2, 16, 24); the original implementation differs by ' in capsys.readouterr().out
    assert json.loads((tmp_path / 'wide.json').read_text())['backbone']['img_size'] == [24, 40]
    tool('vit').main([str(tmp_path / 'vit.safetensors'), str(tmp_path / 'square.pth'), '--num-heads', '3'])
    said = capsys.readouterr().out
    assert '16 positions, read as 4 x 4 patches and none for the class token' in said
    assert '--img-size 24 40 or' in said
    with pytest.raises(SystemExit, match='--img-size 20 40 does not fit patches of 8 pixels'):
        tool('vit').main([str(tmp_path / 'vit.safetensors'), str(tmp_path / 'other.pth'), '--img-size', '20', '40'])
