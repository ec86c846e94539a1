# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/generate.py: files, resuming, mistakes."""

import errno
import json
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_addp import build_model, write_config
from PIL import Image

from addp_mm.apis import generate as api_generate
from addp_mm.apis import load_model
from addp_mm.checkpoints.fingerprint import module_fingerprint
from addp_mm.engine import process_group
from addp_mm.folder_lock import lock_folder
from addp_mm.generation.figures import to_uint8
from addp_mm.generation.trajectories.trajectories import TrajectoryError
from addp_mm.generation.trajectories.trajectory_files import TrajectoryFiles, check_settings

TOOL = Path(__file__).parents[2] / 'tools' / 'generate.py'
main = runpy.run_path(str(TOOL))['main']


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('model')
    torch.save(build_model().state_dict(), folder / 'addp.pth')
    return [str(write_config(folder)), str(folder / 'addp.pth')]


def generate(files, out, *options):
    main([*files, '--out', str(out), '--device', 'cpu', '--steps', '3', *options])
    return {path.name: np.asarray(Image.open(path)) for path in sorted((out / 'images').iterdir())}


def test_writes_images_grid_and_steps(files, tmp_path, capsys):
    images = generate(files, tmp_path, '--num-images', '5', '--batch-size', '2')
    assert list(images) == [f'{index:06d}.png' for index in range(5)]
    assert {image.shape for image in images.values()} == {(16, 16, 3)}
    grid = np.asarray(Image.open(tmp_path / 'grid.png'))
    assert grid.shape == (2 * 18 + 2, 3 * 18 + 2, 3)
    assert (grid[2:18, 2:18] == images['000000.png']).all()
    assert np.asarray(Image.open(tmp_path / 'steps.png')).shape == (2 * 98 + 2, 4 * 98 + 2, 3)
    assert json.loads((tmp_path / 'generation.json').read_text())['steps'] == 3
    assert '5 new image(s)' in capsys.readouterr().out
    assert not list(tmp_path.rglob('.*.partial'))


@pytest.mark.parametrize('batch_size', ['1', '3', '8'])
def test_continues_and_equals_an_uninterrupted_run_of_other_batches(files, tmp_path, capsys, batch_size):
    whole = generate(files, tmp_path / 'whole', '--num-images', '5', '--batch-size', '5')
    generate(files, tmp_path / 'parts', '--num-images', '2')
    (tmp_path / 'parts' / 'images' / '000000.png').unlink()
    kept = (tmp_path / 'parts' / 'images' / '000001.png').stat().st_mtime_ns
    capsys.readouterr()
    parts = generate(files, tmp_path / 'parts', '--num-images', '5', '--batch-size', batch_size)
    assert '4 new image(s), 5 in all' in capsys.readouterr().out
    assert (tmp_path / 'parts' / 'images' / '000001.png').stat().st_mtime_ns == kept
    assert all((parts[name] == image).all() for name, image in whole.items())


def test_webp_holds_the_pixels_of_png_and_npz_those_of_the_files(files, tmp_path):
    png = generate(files, tmp_path / 'png', '--num-images', '5', '--npz')
    webp = generate(files, tmp_path / 'webp', '--num-images', '5', '--npz', '--format', 'webp')
    assert list(webp) == [f'{index:06d}.webp' for index in range(5)]
    with np.load(tmp_path / 'png' / 'images.npz') as archive:
        assert archive.files == ['arr_0']
        for row, one, other in zip(archive['arr_0'], png.values(), webp.values(), strict=True):
            assert (row == one).all()
            assert (row == other).all()
    assert (tmp_path / 'png' / 'images.npz').read_bytes() == (tmp_path / 'webp' / 'images.npz').read_bytes()


def test_an_npz_can_be_added_later_and_has_as_many_images_as_the_command(files, tmp_path, capsys):
    images = generate(files, tmp_path, '--num-images', '5')
    capsys.readouterr()
    generate(files, tmp_path, '--num-images', '3', '--npz')
    assert '0 new image(s), 3 in all' in capsys.readouterr().out
    with np.load(tmp_path / 'images.npz') as archive:
        assert (archive['arr_0'] == np.stack([*images.values()][:3])).all()


def test_a_full_disk_is_one_line_and_the_same_command_continues(files, tmp_path, monkeypatch):
    whole = generate(files, tmp_path / 'whole', '--num-images', '5', '--batch-size', '2')
    save, saved = Image.Image.save, []

    def save_three(image, path, **options):
        if Path(path).name.startswith('.0000') and len(saved) == 3:
            raise OSError(errno.ENOSPC, 'No space left on device')
        saved.append(path)
        save(image, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, 'save', save_three)
        with pytest.raises(SystemExit, match=r'^error: .*00000\d.png cannot be written .*the same command again$'):
            generate(files, tmp_path / 'parts', '--num-images', '5', '--batch-size', '2')
    left = sorted(path.name for path in (tmp_path / 'parts' / 'images').iterdir())
    assert len(left) == 3
    assert set(left) < set(whole)
    parts = generate(files, tmp_path / 'parts', '--num-images', '5', '--batch-size', '2')
    assert all((parts[name] == image).all() for name, image in whole.items())


def test_a_full_disk_is_one_line_and_leaves_no_part_of_the_npz(files, tmp_path, monkeypatch):
    generate(files, tmp_path, '--num-images', '2')

    read = zipfile.ZipFile.open

    def full(self, name, mode='r', **options):
        if mode == 'w':
            raise OSError(errno.ENOSPC, 'No space left on device')
        return read(self, name, mode, **options)

    monkeypatch.setattr(zipfile.ZipFile, 'open', full)
    with pytest.raises(SystemExit, match=r'^error: .*images.npz cannot be written \(No space left on device\)'):
        generate(files, tmp_path, '--num-images', '2', '--npz')
    assert not list(tmp_path.glob('*npz*')) + list(tmp_path.glob('.*npz*'))


def test_what_a_killed_run_left_of_the_npz_is_removed(files, tmp_path):
    (tmp_path / '.images.npz.0f.partial').write_bytes(b'half')
    generate(files, tmp_path, '--num-images', '1')
    assert not list(tmp_path.glob('.*.partial'))


def test_another_run_in_the_same_folder_is_refused(files, tmp_path):
    with lock_folder(tmp_path), pytest.raises(SystemExit, match='is in use by another run'):
        generate(files, tmp_path, '--num-images', '1')
    assert not (tmp_path / 'images').exists()


def test_another_format_does_not_mix_into_a_folder(files, tmp_path):
    generate(files, tmp_path, '--num-images', '1')
    with pytest.raises(SystemExit, match='format png -> webp'):
        generate(files, tmp_path, '--num-images', '1', '--format', 'webp')


def test_classes_of_a_model_without_classes_are_refused(files, tmp_path, capsys):
    with pytest.raises(SystemExit, match=r'--classes 3: the model has no classes \(num_classes is 0\)'):
        generate(files, tmp_path / 'out', '--classes', '3')
    with pytest.raises(SystemExit):
        generate(files, tmp_path / 'out', '--guidance', '2')
    assert '--guidance needs --classes' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_launcher_that_started_nothing_is_refused(files, tmp_path, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(SystemExit, match='addp_mm.torchrun --nproc-per-node PROCESSES -m addp_mm generate'):
        generate(files, tmp_path / 'out', '--launcher', 'pytorch')
    assert not (tmp_path / 'out').exists()


def test_one_device_for_several_processes_is_refused(files, tmp_path, monkeypatch):
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setattr(process_group, 'start_process_group', lambda launcher: None)
    with pytest.raises(SystemExit, match='--device cpu:0: all processes would share it'):
        main([*files, '--out', str(tmp_path / 'out'), '--device', 'cpu:0', '--launcher', 'pytorch'])
    assert not (tmp_path / 'out').exists()


def test_bfloat16_is_another_run(files, tmp_path):
    images = generate(files, tmp_path, '--num-images', '1', '--amp')
    assert len(images) == 1
    with pytest.raises(SystemExit, match='amp True -> False'):
        generate(files, tmp_path, '--num-images', '1')


def test_other_settings_do_not_mix_into_a_folder(files, tmp_path):
    before = generate(files, tmp_path, '--num-images', '2')
    with pytest.raises(SystemExit, match='seed 0 -> 1'):
        generate(files, tmp_path, '--num-images', '3', '--seed', '1')
    assert {name: image.tobytes() for name, image in before.items()} == {
        path.name: np.asarray(Image.open(path)).tobytes() for path in (tmp_path / 'images').iterdir()
    }


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(config='none.py'), 'none.py'),
        (dict(checkpoint='none.pth'), 'none.pth'),
        (dict(options=['--device', 'gpu']), '--device gpu'),
        (dict(options=['--device', 'meta']), '--device meta: .*--device cpu'),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_written(files, tmp_path, change, message):
    paths = [change.get('config', files[0]), change.get('checkpoint', files[1])]
    with pytest.raises(SystemExit, match=message):
        main([*paths, '--out', str(tmp_path / 'out'), '--device', 'cpu', *change.get('options', [])])
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('options', [['--top-p', '1.5'], ['--temperature', 'nan']])
def test_impossible_numbers_are_named(files, tmp_path, capsys, options):
    with pytest.raises(SystemExit, match='2'):
        main([*files, '--out', str(tmp_path / 'out'), *options])
    assert f'argument {options[0]}: {options[1]} must be' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_order_top_k_and_power_schedule_reach_the_sampler(files, tmp_path):
    options = ['--num-images', '2', '--order', 'halton', '--top-k', '1', '--schedule', 'power:2']
    images = generate(files, tmp_path, *options)
    schedule = dict(num_steps=3, order='halton', top_k=1, ratio='power:2')
    expected = api_generate(load_model(*files), 2, **schedule)
    for image, one in zip(images.values(), to_uint8(expected.images), strict=True):
        # decoded in a batch, a pixel may be rounded in the other direction
        assert np.abs(image.astype(int) - one).max() <= 1


@pytest.mark.parametrize(
    'options, message',
    [
        (['--schedule', 'power:-2'], "ratio must be .* got 'power:-2'"),
        (['--steps', '17'], r'num_steps must be at most 16, .* got 17'),
    ],
)
def test_an_impossible_schedule_is_named_and_nothing_is_written(files, tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        generate(files, tmp_path / 'out', *options)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'break_it',
    [
        lambda content: content[: len(content) // 2],
        lambda content: b'',
        lambda content: b'no PNG',
        lambda content: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
    ],
    ids=['cut', 'empty', 'other', 'flipped-bit'],
)
def test_broken_images_are_generated_again(files, tmp_path, capsys, break_it):
    before = generate(files, tmp_path, '--num-images', '2', '--batch-size', '1')
    broken = tmp_path / 'images' / '000001.png'
    broken.write_bytes(break_it(broken.read_bytes()))
    capsys.readouterr()
    after = generate(files, tmp_path, '--num-images', '2', '--batch-size', '1')
    assert '1 new image(s), 2 in all' in capsys.readouterr().out
    assert (after['000001.png'] == before['000001.png']).all()


def test_settings_of_a_folder_without_an_image_are_overwritten(files, tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'generation.json').write_text('{"seed": 1}')
    assert len(generate(files, tmp_path, '--num-images', '1')) == 1
    assert json.loads((tmp_path / 'generation.json').read_text())['seed'] == 0


def test_a_seed_out_of_range_is_named_before_anything_is_written(files, tmp_path, capsys):
    with pytest.raises(SystemExit):
        generate(files, tmp_path / 'out', '--seed', str(2**64))
    assert '--seed: 18446744073709551616 must be from ' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_folder_with_other_files_is_left_unchanged(files, tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / '000000.png').write_bytes(b'mine')
    with pytest.raises(SystemExit, match='generation.json is missing'):
        main([*files, '--out', str(tmp_path), '--device', 'cpu', '--steps', '3'])
    assert (tmp_path / 'images' / '000000.png').read_bytes() == b'mine'


def test_help_imports_neither_torch_nor_mmengine():
    code = (
        f'import runpy, sys\nsys.argv = ["generate.py", "--help"]\ntry:\n'
        f'    runpy.run_path({str(TOOL)!r}, run_name="__main__")\nexcept SystemExit:\n    pass\n'
        'assert "torch" not in sys.modules and "mmengine" not in sys.modules'
    )
    shown = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert '--num-images' in shown.stdout


@pytest.mark.slow
def test_compile_gives_the_same_images_with_cuda_graphs_on_a_gpu(files, tmp_path, monkeypatch):
    modes = []

    def traced(function, mode):
        modes.append(mode)
        return compiler(function, backend='eager')

    compiler = torch.compile
    monkeypatch.setattr(torch, 'compile', traced)
    expected = generate(files, tmp_path / 'plain', '--num-images', '2', '--show-steps', '0')
    assert not modes
    found = generate(files, tmp_path / 'compiled', '--num-images', '2', '--show-steps', '0', '--compile')
    assert modes == ['reduce-overhead'] * 2
    assert all((found[name] == image).all() for name, image in expected.items())


def test_trajectories_are_written_once_and_survive_an_interruption(files, tmp_path):
    images = generate(files, tmp_path / 'whole', '--num-images', '5', '--batch-size', '2', '--trajectories')
    stored = TrajectoryFiles(tmp_path / 'whole' / 'trajectories')
    numbers, found, settings = stored.read()
    assert numbers == [0, 1, 2, 3, 4]
    assert settings['steps'] == found.num_steps == 3
    model = load_model(*files)
    check_settings(settings, dict(weights=module_fingerprint(model)), stored.folder)
    decoded = to_uint8(model.decode(model.tokenizer.lookup(found.ids, 4, 4)))
    assert (decoded == np.stack([*images.values()])).all()

    # with other batches, after a kill that left half a file, and a damaged one
    generate(files, tmp_path / 'parts', '--num-images', '3', '--batch-size', '3', '--trajectories')
    folder = tmp_path / 'parts' / 'trajectories'
    (folder / '000000-000002.safetensors').write_bytes(b'half')
    (folder / '.000003-000004.safetensors.1.partial').write_bytes(b'half')
    generate(files, tmp_path / 'parts', '--num-images', '5', '--batch-size', '1', '--trajectories')
    again = TrajectoryFiles(folder).read()
    assert again[0] == numbers
    assert again[2] == settings
    assert torch.equal(again[1].ids, found.ids)
    assert torch.equal(again[1].kept_at, found.kept_at)
    torch.testing.assert_close(again[1].log_probs, found.log_probs)
    assert sorted(path.name for path in folder.iterdir()) == [f'{i:06d}-{i:06d}.safetensors' for i in range(5)]


def test_trajectories_of_another_sampling_or_none_are_named(files, tmp_path):
    generate(files, tmp_path, '--num-images', '1', '--trajectories')
    stored = TrajectoryFiles(tmp_path / 'trajectories')
    _, found, settings = stored.read()
    with pytest.raises(TrajectoryError, match=r'another model or sampler: weights is .*…, and .other. is needed'):
        check_settings(settings, dict(weights='other'), stored.folder)
    stored.write(1, found, dict(settings, seed=7))
    with pytest.raises(TrajectoryError, match=r'000001-000001.safetensors has other settings than .* \(seed\)'):
        stored.read()
    with pytest.raises(TrajectoryError, match='has no trajectories. To write them: addp generate'):
        TrajectoryFiles(tmp_path / 'images').read()
