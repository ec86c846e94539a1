# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/evaluate_images.py: the same numbers as torch-fidelity's command line, and bad input."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.image_sets import pixels, write_folder
from helpers.tiny_extractor import write_weights

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.evaluation import InceptionFeatures, Reference, build_extractor
from addp_mm.evaluation.compare_images import compute_scores
from addp_mm.evaluation.feature_cache import extract

TOOL = Path(__file__).parents[2] / 'tools/evaluate_images.py'


@pytest.fixture(scope='module')
def tool():
    return runpy.run_path(str(TOOL))


@pytest.fixture
def sets(tmp_path):
    return [str(write_folder(tmp_path / name, pixels(12, 16, seed))) for seed, name in enumerate('ab')]


@pytest.fixture
def config(tmp_path):
    (tmp_path / 'extractor.py').write_text(f'extractor = {write_weights(tmp_path / "tiny.pth")!r}\n')
    return str(tmp_path / 'extractor.py')


def run(tool, *arguments):
    tool['main']([*map(str, arguments), '--device', 'cpu'])


def test_scores_are_printed_with_features_and_convention(tool, sets, config, tmp_path, capsys):
    options = ['--extractor', config, '--cache-dir', tmp_path / 'cache', '--out', tmp_path / 'found.json']
    run(tool, *sets, *options)
    said = capsys.readouterr().out
    found = json.loads((tmp_path / 'found.json').read_text())
    network = build_extractor(config)
    vectors = torch.cat([rows for rows, _ in extract(tool_images(sets[0]), network)])
    expected = compute_scores(['fid', 'kid', 'prc'], network, vectors, None, Reference(sets[1], network))
    assert found['metrics'] == pytest.approx(expected, rel=1e-5)
    assert found['reference'] == dict(path=sets[1], convention='12 images (convention of ADDP and MAGE)')
    assert found['images'] == dict(path=sets[0], count=12)
    assert found['extractor'] == dict(name='tiny-vit', fingerprint=network.fingerprint)
    assert '--metrics is is left out: tiny-vit has no class logits' in said
    assert 'not an FID' in said
    assert f'fid[tiny-vit]   {expected["fid[tiny-vit]"]:.4f}' in re.sub(' +', '   ', said)
    # the features of the reference were kept
    assert len(list((tmp_path / 'cache').rglob('features_00000.npz'))) == 1


def tool_images(path):
    from addp_mm.evaluation import open_images

    return open_images(path)


def test_arrays_and_statistics_serve_as_well_as_folders(tool, sets, config, tmp_path, capsys):
    np.savez(tmp_path / 'a.npz', pixels(12, 16, 0))
    run(tool, sets[1], '--extractor', config, '--statistics', tmp_path / 'b.npz')
    assert f'{tmp_path / "b.npz"}: 12 images, features of tiny-vit' in capsys.readouterr().out
    found = []
    for images, reference in ((sets[0], sets[1]), (tmp_path / 'a.npz', tmp_path / 'b.npz')):
        options = ['--extractor', config, '--metrics', 'fid', '--no-cache', '--out', tmp_path / 'found.json']
        run(tool, images, reference, *options)
        found.append(json.loads((tmp_path / 'found.json').read_text()))
    assert found[0]['metrics'] == pytest.approx(found[1]['metrics'], rel=1e-5)
    assert found[1]['reference']['convention'].startswith('statistics of 12 images')
    run(tool, sets[0], sets[0], '--extractor', config, '--metrics', 'fid', '--no-cache')
    assert re.search(r'fid\[tiny-vit\] +-?0\.0000', capsys.readouterr().out)


def test_images_of_different_sizes_are_said(tool, sets, config, tmp_path, capsys):
    write_folder(tmp_path / 'large', pixels(12, 32))
    options = ['--extractor', config, '--metrics', 'fid', '--no-cache']
    run(tool, sets[0], tmp_path / 'large', *options, '--img-size', '16')
    assert 'warning' not in capsys.readouterr().out
    run(tool, sets[0], tmp_path / 'large', *options)
    assert 'has 16x16 px, that of' in capsys.readouterr().out


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['a', 'b', '--metrics', 'is'], 'error: --metrics is: tiny-vit has no class logits'),
        (['a', 'one', '--metrics', 'fid'], '--metrics fid: it needs at least 2 images in each set; one: 1'),
        (['one', 'b'], 'nothing can be measured. --metrics fid: .*; the generated images: 1'),
        (['a', 'adm.npz'], "taken to be of FID's Inception, and the features here are of tiny-vit"),
        (['a', 'none'], 'none does not exist. Give a folder'),
        (['none', 'b'], 'none does not exist. Give a folder'),
        (['empty', 'b'], 'empty has no images'),
        (['a', 'keys.npz'], 'keys.npz holds neither images nor statistics'),
        (['a', 'b', '--out', '.'], r'--out \. is a folder'),
        (['a', 'b', '--statistics', '/proc/x.npz'], 'no file can be written in /proc'),
    ],
)
def test_bad_input_ends_in_one_line(tool, sets, config, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    Path('empty').mkdir()
    write_folder(Path('one'), pixels(1, 16))
    np.savez('adm.npz', mu=np.zeros(8), sigma=np.eye(8))
    np.savez('keys.npz', labels=np.zeros(8))
    with pytest.raises(SystemExit, match=words) as end:
        run(tool, *arguments, '--extractor', config, '--cache-dir', 'cache')
    assert '\n' not in str(end.value)


def test_scores_that_need_more_images_are_left_out(tool, sets, config, tmp_path, capsys):
    write_folder(tmp_path / 'three', pixels(3, 16))
    run(tool, sets[0], tmp_path / 'three', '--extractor', config, '--no-cache')
    said = capsys.readouterr().out
    assert f'--metrics prc is left out: it needs at least 4 images in each set; {tmp_path / "three"}: 3' in said
    assert 'fid[tiny-vit]' in said


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['a'], 'give a REFERENCE to compare with'),
        (['a', '--statistics', 's.npz', '--out', 'o.json'], '--out writes what was measured'),
        (['a', 'b', '--weights', 'w', '--extractor', 'e'], '--weights is for Inception'),
        (['a', 'b', '--cache-dir', 'c', '--no-cache'], 'exclude each other'),
        (['a', 'b', '--save', '3'], '--save was renamed: use --statistics'),
        (['a', 'b', '--image-size', '3'], '--image-size was renamed: use --img-size'),
    ],
)
def test_wrong_options_are_refused(tool, capsys, arguments, words):
    with pytest.raises(SystemExit):
        tool['parse_args'](arguments)
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_the_numbers_are_those_of_torch_fidelitys_command(tool, sets, tmp_path, monkeypatch, capsys):
    """The whole path: files, Inception with the same random weights, and every score."""
    module = pytest.importorskip('torch_fidelity.feature_extractor_inceptionv3')
    weights = tmp_path / 'random.pth'
    with monkeypatch.context() as patch:
        patch.setattr(module.FeatureExtractorInceptionV3, 'load_state_dict', lambda *_: None)
        patch.setattr(module, 'load_state_dict_from_url', lambda *_, **__: {})
        network = module.FeatureExtractorInceptionV3('random', ['2048'])
        network.fc.weight.data *= 1000  # random logits are all but equal
        torch.save(network.state_dict(), weights)
    for name in range(5, 12):
        Path(sets[1], f'{name:04}.png').unlink()
    options = ['--kid-subset-size', '4']
    command = ['fidelity', '--input1', sets[0], '--input2', sets[1]]
    kinds = ['--fid', '--isc', '--kid', '--prc', '--feature-extractor', 'inception-v3-compat', '--save-cpu-ram']
    kinds += ['--feature-extractor-weights-path', str(weights), '--no-cache', '--cpu', '--json', '--silent']
    monkeypatch.setattr('sys.argv', [*command, *kinds, *options])
    capsys.readouterr()
    pytest.importorskip('torch_fidelity.fidelity').main()
    theirs = json.loads(capsys.readouterr().out)
    run(tool, *sets, *options, '--weights', weights, '--no-cache', '--out', tmp_path / 'found.json')
    found = json.loads((tmp_path / 'found.json').read_text())['metrics']
    names = {name.partition('[')[0]: value for name, value in found.items()}
    assert all(re.search(r'\[inception-v3-[0-9a-f]{8}\]$', name) for name in found)
    assert names == {
        'fid': pytest.approx(theirs['frechet_inception_distance'], rel=1e-3),
        'is': pytest.approx(theirs['inception_score_mean'], rel=1e-5),
        'is_std': pytest.approx(theirs['inception_score_std'], rel=1e-4, abs=1e-7),
        'kid': pytest.approx(theirs['kernel_inception_distance_mean'], rel=1e-4),
        'kid_std': pytest.approx(theirs['kernel_inception_distance_std'], rel=1e-4),
        'precision': theirs['precision'],
        'recall': theirs['recall'],
    }
    # torch's cache, where torch-fidelity looks for its weights too, needs no path
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    cached = tmp_path / 'hub/checkpoints' / Path(module.URL_INCEPTION_V3).name
    cached.parent.mkdir(parents=True)
    weights.rename(cached)
    assert all(name.endswith(f'[{InceptionFeatures().name}]') for name in found)
    torch.save(dict(weight=torch.zeros(1)), tmp_path / 'wrong.pth')
    with pytest.raises(CheckpointError, match="does not contain the weights of FID's Inception-v3"):
        InceptionFeatures(str(tmp_path / 'wrong.pth'))


def test_missing_weights_of_inception_name_the_command(tmp_path):
    pytest.importorskip('torch_fidelity')
    with pytest.raises(CheckpointError, match=r'none.pth does not exist(.|\n)*curl -LO https(.|\n)*BackboneFeatures'):
        InceptionFeatures(str(tmp_path / 'none.pth'))
