# Copyright (c) addp_mm contributors. Apache-2.0.
"""``addp label-maps``: what it writes, how it resumes, and what it refuses."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from addp_mm.datasets.token_labels.stored_maps import StoredMaps
from addp_mm.label_maps.config_classifier import load_config_classifier

TOOL = Path(__file__).parents[2] / 'tools/label_maps.py'
CONFIG = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='addp_mm.ADDPViT', arch=dict(embed_dims=16, num_layers=1, num_heads=2), img_size=32, patch_size=8,
        out_type='avg_featmap',
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint='hf://owner/never-downloaded/weights.pth')),
    head=dict(type='LinearClsHead', num_classes={num_classes}, in_channels=16))
data_preprocessor = dict(num_classes={num_classes}, mean=[127] * 3, std=[64] * 3, to_rgb=True)
train_dataloader = dict(dataset=dict(metainfo=dict(classes=['dark', 'light', 'other'])))
"""
NAMES = [f'{folder}/{k}.png' for folder, count in (('dark', 5), ('light', 4), ('other', 2)) for k in range(count)]


@pytest.fixture(scope='module', autouse=True)
def home(tmp_path_factory):
    """Lists of images are kept in the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('HOME', str(tmp_path_factory.mktemp('home')))
        yield


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('label_maps', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    """Images of three classes, a config and random weights of its model."""
    folder = tmp_path_factory.mktemp('label_maps')
    rng = np.random.default_rng(0)
    for name in NAMES:
        path = folder / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(path)
    (folder / 'config.py').write_text(CONFIG.format(num_classes=3))
    (folder / 'five.py').write_text(CONFIG.format(num_classes=5))
    torch.manual_seed(0)
    weights = random_weights(folder / 'config.py')
    torch.save(dict(state_dict=weights), folder / 'weights.pth')
    return folder


def random_weights(config: Path) -> dict:
    import mmpretrain.models  # noqa: F401
    from mmengine.config import Config
    from mmengine.registry import DefaultScope

    from addp_mm.registry import MODELS

    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor)).state_dict()


def arguments(inputs, out, *options, config='config.py', weights='weights.pth', images='images'):
    paths = [str(inputs / part) for part in (config, weights, images)]
    return [*paths, '--out', str(out), '--num-workers', '0', '--images-per-file', '4', '--top-k', '2', *options]


@pytest.fixture(scope='module')
def written(tool, inputs):
    """The maps of an uninterrupted run."""
    tool.main(arguments(inputs, inputs / 'maps', '--batch-size', '3'))
    return inputs / 'maps'


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def refusal(tool, args, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        tool.main(args)
    text = stop.value.code if isinstance(stop.value.code, str) else capsys.readouterr().err.splitlines()[-1]
    assert '\n' not in text
    return text


def test_maps_are_the_best_classes_of_the_classifier(written, inputs):
    maps = StoredMaps(written)
    assert (len(maps), maps.num_classes) == (len(NAMES), 3)
    assert maps.files.about['map_size'] == [4, 4]
    classifier = load_config_classifier(str(inputs / 'config.py'), str(inputs / 'weights.pth'))
    for name in NAMES:
        pixels = Image.open(inputs / 'images' / name).resize((32, 32), Image.Resampling.BICUBIC)
        images = torch.from_numpy(np.asarray(pixels).copy()).permute(2, 0, 1)[None].float()
        scores, classes = classifier(images)[0].softmax(0).topk(2, 0)
        read = maps.read(name)
        assert torch.equal(read.classes, classes)
        torch.testing.assert_close(read.scores, scores, atol=1e-3, rtol=0)


def test_the_same_command_does_nothing_more(tool, written, inputs, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in written.iterdir()}
    tool.main(arguments(inputs, written))
    assert {path.name: path.stat().st_mtime_ns for path in written.iterdir()} == before
    assert '3 of 3 files exist' in capsys.readouterr().out


def test_only_missing_files_are_written_again(tool, written, inputs, tmp_path):
    shutil.copytree(written, tmp_path / 'maps')
    (tmp_path / 'maps/maps-00001-of-00003.safetensors').unlink()
    kept = (tmp_path / 'maps/maps-00002-of-00003.safetensors').stat().st_mtime_ns
    tool.main(arguments(inputs, tmp_path / 'maps'))
    assert content(tmp_path / 'maps') == content(written)
    assert (tmp_path / 'maps/maps-00002-of-00003.safetensors').stat().st_mtime_ns == kept


def test_a_killed_run_resumes(tool, written, inputs, tmp_path, monkeypatch, capsys):
    """Interrupted in the second file: the first stays, and the rest equals an uninterrupted run."""
    from addp_mm.label_maps import write_maps

    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return probabilities(*args)

    probabilities = write_maps.probabilities_of
    monkeypatch.setattr(write_maps, 'probabilities_of', interrupted)
    with pytest.raises(SystemExit, match='^130$'):
        tool.main(arguments(inputs, tmp_path / 'maps', '--batch-size', '3'))
    assert 'the same command resumes' in capsys.readouterr().err
    assert [path.name for path in (tmp_path / 'maps').glob('*.safetensors')] == ['maps-00000-of-00003.safetensors']
    monkeypatch.setattr(write_maps, 'probabilities_of', probabilities)
    tool.main(arguments(inputs, tmp_path / 'maps', '--batch-size', '3'))
    assert content(tmp_path / 'maps').keys() == content(written).keys()
    assert len(StoredMaps(tmp_path / 'maps')) == len(NAMES)


def test_processes_share_the_files(tool, written, inputs, tmp_path, capsys):
    tool.main(arguments(inputs, tmp_path / 'maps', '--shard', '1/2', '--batch-size', '3'))
    assert '1 of 3 files exist' in capsys.readouterr().out
    tool.main(arguments(inputs, tmp_path / 'maps', '--shard', '0/2', '--batch-size', '3', '--num-workers', '1'))
    assert '3 of 3 files exist' in capsys.readouterr().out
    assert content(tmp_path / 'maps') == content(written)


def test_agreement_with_the_folders_is_told(tool, written, inputs, tmp_path, capsys):
    tool.main(arguments(inputs, tmp_path / 'maps'))
    text = capsys.readouterr().out
    maps = StoredMaps(written)
    from addp_mm.datasets.token_labels.token_labels import token_labels

    agreeing = sum(
        token_labels(maps.read(name), np.eye(3), (1, 1), 3)[:, 0].argmax().item()
        == ['dark', 'light', 'other'].index(name.split('/')[0])
        for name in NAMES
    )
    assert f"is that of the image's folder for {agreeing / len(NAMES):.1%} of the images" in text


def test_figures_show_images_with_their_classes(tool, inputs, tmp_path):
    tool.main(arguments(inputs, tmp_path / 'maps', '--figures', '2'))
    figures = sorted((tmp_path / 'maps/figures').rglob('*.*'))
    names = [path.relative_to(tmp_path / 'maps/figures').as_posix() for path in figures]
    assert names == ['dark/0.png', 'light/0.png']
    picture = np.asarray(Image.open(figures[0]).convert('RGB'))
    assert picture.shape[1] == 2 * 420 + 16
    assert picture[:280, 436:].std() > 0
    assert not np.array_equal(picture[:280, :420], picture[:280, 436:])


def test_a_broken_image_has_no_map(tool, inputs, tmp_path, capsys):
    shutil.copytree(inputs / 'images', tmp_path / 'images')
    (tmp_path / 'images/light/1.png').write_bytes(b'no image')
    args = arguments(inputs, tmp_path / 'maps')
    args[2] = str(tmp_path / 'images')
    tool.main(args)
    assert '1 images could not be read and have no map: light/1.png' in capsys.readouterr().out
    maps = StoredMaps(tmp_path / 'maps')
    with pytest.raises(ValueError, match=r'light/1\.png could not be read'):
        maps.read('light/1.png')
    assert maps.read('light/2.png').scores.shape == (2, 4, 4)


def test_a_timm_model_writes_maps_too(tool, inputs, tmp_path):
    torch.manual_seed(0)
    save_file(timm.create_model('test_vit', num_classes=7).state_dict(), tmp_path / 'vit.safetensors')
    args = arguments(inputs, tmp_path / 'maps', '--img-size', '96', '--amp')
    tool.main(['timm:test_vit', str(tmp_path / 'vit.safetensors'), *args[2:]])
    maps = StoredMaps(tmp_path / 'maps')
    assert maps.num_classes == 7
    assert maps.files.about['map_size'] == [6, 6]


def test_other_settings_in_the_same_folder_are_refused(tool, written, inputs, capsys):
    text = refusal(tool, arguments(inputs, written, '--img-size', '64'), capsys)
    assert 'map_size is [4, 4], but [8, 8] is needed' in text
    assert 'image_size is 32, but 64 is needed' in text
    torch.manual_seed(1)
    torch.save(random_weights(inputs / 'config.py'), inputs / 'other.pth')
    assert 'classifier is' in refusal(tool, arguments(inputs, written, weights='other.pth'), capsys)
    assert 'images.count is 11, but 5 is needed' in refusal(
        tool, arguments(inputs, written, images='images/dark'), capsys
    )


def test_weights_of_another_classifier_are_refused(tool, inputs, tmp_path, capsys):
    assert 'head.fc.weight' in refusal_lines(tool, arguments(inputs, tmp_path / 'maps', config='five.py'))
    args = arguments(inputs, tmp_path / 'maps')[2:]
    text = refusal(tool, ['timm:test_vit', str(inputs / 'weights.pth'), *args], capsys)
    assert 'has no head.weight, the last layer of test_vit' in text
    text = refusal(tool, ['timm:test_vt', str(inputs / 'weights.pth'), *args], capsys)
    assert 'did you mean test_vit' in text


def refusal_lines(tool, args) -> str:
    with pytest.raises(SystemExit) as stop:
        tool.main(args)
    return str(stop.value.code)


@pytest.mark.parametrize(
    'options, found',
    [
        (['--shard', '2/2'], 'expected I/N with I from 0 to N - 1'),
        (['--top-k', '4'], '--top-k 4: the classifier has 3 classes'),
        (['--device', 'tpu9'], '--device tpu9'),
        (['--img-size', '33'], 'gives no logits at the positions of images of 33 px'),
    ],
)
def test_wrong_options_are_refused(tool, inputs, tmp_path, capsys, options, found):
    assert found in refusal(tool, arguments(inputs, tmp_path / 'maps', *options), capsys)


def test_wrong_paths_are_refused(tool, inputs, tmp_path, capsys):
    out = tmp_path / 'maps'
    assert 'no.py does not exist' in refusal(tool, arguments(inputs, out, config='no.py'), capsys)
    assert 'no.pth does not exist' in refusal(tool, arguments(inputs, out, weights='no.pth'), capsys)
    text = refusal(tool, arguments(inputs, out, images='imges'), capsys)
    assert 'imges does not exist' in text
    assert text.strip().endswith('exists). Check the folder of images.')
    below = inputs / 'images/maps'
    assert 'the figures would become images' in refusal(tool, arguments(inputs, below, '--figures', '1'), capsys)
    (inputs / 'seg.py').write_text("model = dict(type='EncoderDecoder')")
    assert 'an ImageClassifier with a head is needed' in refusal(tool, arguments(inputs, out, config='seg.py'), capsys)


def test_the_description_names_its_origin(written, inputs):
    notes = json.loads((written / 'label_maps.json').read_text())['notes']
    assert notes['images'] == str(inputs / 'images')
    assert notes['checkpoint'] == str(inputs / 'weights.pth')
