# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/inpaint.py: files, masks, sizes, resuming, mistakes."""

import errno
import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_addp import MODEL, build_model, write_config
from mmengine.registry import DefaultScope
from PIL import Image

from addp_mm.alignment.pairs import questions_of
from addp_mm.alignment.redraw import choose_tokens, redraw_generators, redraw_tokens
from addp_mm.apis import inpaint as api_inpaint
from addp_mm.apis import load_model
from addp_mm.checkpoints.fingerprint import module_fingerprint
from addp_mm.folder_lock import lock_folder
from addp_mm.generation.figures import to_uint8
from addp_mm.generation.trajectories.replay import replay
from addp_mm.generation.trajectories.sampler_settings import sampler_of
from addp_mm.generation.trajectories.trajectory_files import TrajectoryFiles
from addp_mm.registry import MODELS

TOOL = Path(__file__).parents[2] / 'tools' / 'inpaint.py'
main = runpy.run_path(str(TOOL))['main']
NANO = ['addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px', 'addp_mm://addp_nano-p8.safetensors']


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('model')
    torch.save(build_model().state_dict(), folder / 'addp.pth')
    return [str(write_config(folder)), str(folder / 'addp.pth')]


def pixels(height, width, channels=3, seed=0):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def white_box(height, width, box):
    left, top, box_width, box_height = box
    mask = np.zeros((height, width), np.uint8)
    mask[top : top + box_height, left : left + box_width] = 255
    return mask


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return str(path)


def inpaint(files, image, out, *options):
    """Run the tool; return the samples by their path below the folder of images."""
    main([*files, image, '--out', str(out), '--device', 'cpu', '--steps', '3', '--num-samples', '2', *options])
    return read_samples(out)


def read_samples(out):
    folder = out / 'images'
    found = sorted(path for path in folder.rglob('*.png'))
    return {path.relative_to(folder).as_posix(): np.asarray(Image.open(path)) for path in found}


def changed(sample, image):
    return (sample.astype(int) != image).any(-1)


def test_samples_equal_the_api_and_keep_all_pixels_outside_the_mask(files, tmp_path, capsys):
    image, mask = pixels(21, 30), white_box(21, 30, (3, 5, 9, 6))
    paths = save(tmp_path / 'a.png', image), save(tmp_path / 'mask.png', mask)
    samples = inpaint(files, paths[0], tmp_path / 'out', '--mask', paths[1], '--seed', '5')
    assert list(samples) == ['000/a.png', '001/a.png']
    tensor = torch.from_numpy(np.stack([image, image])).permute(0, 3, 1, 2) / 255
    masks = torch.from_numpy(np.stack([mask, mask])) > 0
    expected = to_uint8(api_inpaint(load_model(*files), tensor, masks, seed=5, num_steps=3).images)
    for sample, one in zip(samples.values(), expected, strict=True):
        assert np.array_equal(sample, one)
        assert np.array_equal(sample[mask == 0], image[mask == 0])
    assert not np.array_equal(*samples.values())
    assert '2 new sample(s) of 1 image(s)' in capsys.readouterr().out
    assert json.loads((tmp_path / 'out/inpainting.json').read_text())['seed'] == 5
    figure = np.asarray(Image.open(tmp_path / 'out/figures/a.png'))
    assert figure.shape == (2 + 107 + 2, 4 * (152 + 2) + 2, 3)  # 21x30 enlarged by 5, in frames


def test_a_box_is_the_same_as_its_mask(files, tmp_path):
    image = save(tmp_path / 'a.png', pixels(16, 16))
    mask = save(tmp_path / 'mask.png', white_box(16, 16, (3, 5, 9, 6)))
    boxed = inpaint(files, image, tmp_path / 'box', '--box', '3,5,9,6')
    masked = inpaint(files, image, tmp_path / 'mask', '--mask', mask)
    assert all(np.array_equal(boxed[name], masked[name]) for name in masked)
    both = inpaint(files, image, tmp_path / 'both', '--mask', mask, '--box', '0,0,1,1')
    assert changed(both['000/a.png'], pixels(16, 16))[0, 0]


def test_outpainting_enlarges_the_image_and_keeps_it(files, tmp_path):
    image = pixels(18, 13)
    samples = inpaint(files, save(tmp_path / 'a.png', image), tmp_path / 'out', '--outpaint', '5,0,9,7')
    for sample in samples.values():
        assert sample.shape == (25, 27, 3)
        assert np.array_equal(sample[:18, 5:18], image)


def test_the_reconstruction_decodes_known_tokens_too(files, tmp_path):
    image = pixels(16, 16)
    paths = save(tmp_path / 'a.png', image), '--box', '0,0,4,4'
    pasted = inpaint(files, paths[0], tmp_path / 'pasted', *paths[1:])['000/a.png']
    decoded = inpaint(files, paths[0], tmp_path / 'decoded', *paths[1:], '--reconstruction')['000/a.png']
    assert np.array_equal(pasted[:4, :4], decoded[:4, :4])
    assert changed(decoded, image)[4:].mean() > 0.9


def test_a_folder_of_images_and_a_folder_of_masks(files, tmp_path, capsys):
    sizes = {'a.png': (16, 16), 'b.png': (20, 12), 'sub/c.png': (16, 16), 'none.png': (16, 16)}
    for number, (name, size) in enumerate(sizes.items()):
        save(tmp_path / 'images' / name, pixels(*size, seed=number))
        save(tmp_path / 'masks' / name, white_box(*size, (0, 0, 0, 0) if name == 'none.png' else (2, 2, 5, 5)))
    (tmp_path / 'masks/b.png').rename(tmp_path / 'masks/b.bmp')  # another extension
    samples = inpaint(files, str(tmp_path / 'images'), tmp_path / 'out', '--mask', str(tmp_path / 'masks'))
    names = ['a.png', 'b.png', 'sub/c.png']
    assert list(samples) == [f'{sample:03d}/{name}' for sample in range(2) for name in names]
    for number, (name, size) in enumerate(sizes.items()):
        if name in names:
            where = changed(samples[f'000/{name}'], pixels(*size, seed=number))
            assert not where[white_box(*size, (2, 2, 5, 5)) == 0].any()
            assert where[2:7, 2:7].mean() > 0.9
            assert (tmp_path / 'out/figures' / name).is_file()
    shown = capsys.readouterr()
    assert 'none.png: the mask is empty, so that there is nothing to generate' in shown.err
    assert '6 new sample(s) of 3 image(s)' in shown.out
    # one after the other, in batches of one tile
    alone = inpaint(
        files, str(tmp_path / 'images'), tmp_path / 'alone', '--mask', str(tmp_path / 'masks'), '--batch-size', '1'
    )
    assert all(np.abs(alone[name].astype(int) - samples[name]).max() <= 1 for name in samples)


def test_an_interrupted_run_goes_on_with_equal_bytes(files, tmp_path, capsys):
    for name in 'ab':
        save(tmp_path / f'images/{name}.png', pixels(16, 24, seed=ord(name)))
    command = files, str(tmp_path / 'images'), tmp_path / 'out', '--box', '4,4,12,8', '--batch-size', '3'
    inpaint(*command)
    before = {path: path.read_bytes() for path in (tmp_path / 'out').rglob('*.png')}
    broken = tmp_path / 'out/images/001/a.png'
    broken.write_bytes(broken.read_bytes()[:-30])
    (tmp_path / 'out/images/000/b.png').unlink()
    (tmp_path / 'out/figures/a.png').unlink()
    kept = (tmp_path / 'out/images/000/a.png').stat().st_mtime_ns
    capsys.readouterr()
    inpaint(*command)
    assert '2 new sample(s) of 2 image(s)' in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (tmp_path / 'out').rglob('*.png')} == before
    assert (tmp_path / 'out/images/000/a.png').stat().st_mtime_ns == kept
    inpaint(*command, '--num-samples', '3')
    assert '2 new sample(s) of 2 image(s)' in capsys.readouterr().out


def test_samples_of_a_changed_mask_are_generated_again(files, tmp_path, capsys):
    image = save(tmp_path / 'a.png', pixels(16, 16))
    mask = save(tmp_path / 'mask.png', white_box(16, 16, (0, 0, 4, 4)))
    inpaint(files, image, tmp_path / 'out', '--mask', mask)
    save(tmp_path / 'mask.png', white_box(16, 16, (8, 8, 4, 4)))
    sample = inpaint(files, image, tmp_path / 'out', '--mask', mask)['000/a.png']
    assert capsys.readouterr().out.count('2 new sample(s)') == 2
    assert changed(sample, pixels(16, 16))[8:12, 8:12].any()
    assert not changed(sample, pixels(16, 16))[:8].any()


BOX = (2, 3, 7, 9)


@pytest.mark.parametrize(
    'array, options',
    [
        (white_box(16, 16, BOX), []),
        (255 - white_box(16, 16, BOX), ['--invert-mask']),
        (np.where(white_box(16, 16, BOX) > 0, 128, 127).astype(np.uint8), []),
        (white_box(16, 16, BOX).astype(np.uint16) * 257, []),
        (white_box(16, 16, BOX) > 0, []),
        (np.repeat(white_box(16, 16, BOX)[..., None], 3, 2), []),
        (np.dstack([np.zeros((16, 16, 3), np.uint8), 255 - white_box(16, 16, BOX)]), []),
    ],
    ids=['grey', 'inverted', 'half', '16-bit', '1-bit', 'rgb', 'transparent'],
)
def test_masks_of_any_kind_mean_the_same(files, tmp_path, array, options):
    paths = save(tmp_path / 'a.png', pixels(16, 16)), save(tmp_path / 'mask.png', array)
    sample = inpaint(files, paths[0], tmp_path / 'out', '--mask', paths[1], *options)['000/a.png']
    where, inside = changed(sample, pixels(16, 16)), white_box(16, 16, BOX) > 0
    assert not where[~inside].any()
    assert where[inside].mean() > 0.9


@pytest.mark.parametrize(
    'array, as_rgb',
    [
        (pixels(18, 20, 1), lambda array: np.repeat(array[..., None], 3, 2)),
        (pixels(18, 20, 1).astype(np.uint16) * 257, lambda array: np.repeat((array // 257)[..., None], 3, 2)),
        (np.dstack([pixels(18, 20), np.full((18, 20), 255, np.uint8)]), lambda array: array[..., :3]),
    ],
    ids=['grey', '16-bit', 'rgba'],
)
def test_images_of_other_kinds_become_rgb_and_keep_their_values(files, tmp_path, array, as_rgb):
    sample = inpaint(files, save(tmp_path / 'a.png', array), tmp_path / 'out', '--box', '2,3,7,9')['000/a.png']
    outside = white_box(18, 20, (2, 3, 7, 9)) == 0
    assert np.array_equal(sample[outside], as_rgb(array)[outside])


def test_the_exif_orientation_is_applied_to_the_image(files, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image = pixels(16, 24)
    path = save(tmp_path / 'a.png', image, exif=exif)
    mask = save(tmp_path / 'mask.png', white_box(24, 16, (0, 0, 4, 4)))
    sample = inpaint(files, path, tmp_path / 'out', '--mask', mask)['000/a.png']
    assert np.array_equal(sample[4:], np.rot90(image, -1)[4:])


def test_a_model_of_one_channel_reads_and_writes_grey(tmp_path):
    grey = dict(MODEL, **{part: dict(MODEL[part], in_channels=1) for part in ('tokenizer', 'backbone')})
    config, weights = tmp_path / 'grey.py', tmp_path / 'grey.pth'
    config.write_text(f"default_scope = 'mmpretrain'\nmodel = {grey!r}\n")
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        torch.save(MODELS.build(grey).state_dict(), weights)
    image = pixels(18, 20, 1)
    path = save(tmp_path / 'a.png', image)
    sample = inpaint([str(config), str(weights)], path, tmp_path / 'out', '--box', '2,3,7,9')['000/a.png']
    inside = white_box(18, 20, (2, 3, 7, 9)) > 0
    assert np.array_equal(sample[~inside], image[~inside])
    assert (sample != image)[inside].mean() > 0.9


def test_a_full_mask_is_unconditional(files, tmp_path):
    white = save(tmp_path / 'mask.png', np.full((16, 20), 255, np.uint8))
    first, second = (
        inpaint(files, save(tmp_path / f'{seed}.png', pixels(16, 20, seed=seed)), tmp_path / str(seed), '--mask', white)
        for seed in (1, 2)
    )
    assert np.array_equal(first['000/1.png'], second['000/2.png'])


@pytest.mark.parametrize(
    'options, message',
    [
        (['--mask', 'wrong.png'], 'a.png has 16x12 pixels, and .*wrong.png 12x16'),
        (['--mask', 'none.png'], '--mask none.png does not exist'),
        (['--mask', 'empty'], 'empty has no mask of the same name for a.png'),
        (['--mask', 'two'], 'two has several masks for a.png'),
        (['--mask', 'text.png'], 'text.png: cannot be read as an image'),
        (['--box', '10,0,8,4'], '--box 10,0,8,4 is not inside a.png, of 16x12 pixels'),
        (['--box', '0,0,4,4', '--overlap', '4'], 'overlap must be from 0 to 3 tokens, .* got 4'),
        (['--box', '0,0,4,4', '--steps', '17'], 'num_steps must be at most 16'),
        (['--box', '0,0,4,4', '--classes', '3'], '--classes 3: the model has no classes'),
    ],
)
def test_wrong_arguments_are_named(files, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    save(Path('a.png'), pixels(12, 16))
    save(Path('wrong.png'), white_box(16, 12, (0, 0, 4, 4)))
    for name in ('two/a.jpg', 'two/a.bmp'):
        save(Path(name), white_box(12, 16, (0, 0, 4, 4)))
    Path('empty').mkdir()
    Path('text.png').write_text('text')
    with pytest.raises(SystemExit, match=message):
        inpaint(files, 'a.png', Path('out'), *options)
    assert not list(Path().rglob('out/images/**/*.png'))


@pytest.mark.parametrize(
    'options, message',
    [
        ([], 'give the part to generate: --mask, --box or --outpaint'),
        (['--box', '1,2,3'], 'argument --box: invalid X,Y,W,H value'),
        (['--outpaint', '1,2,3,x'], 'argument --outpaint: invalid LEFT,TOP,RIGHT,BOTTOM value'),
        (['--outpaint', '1,2,3,-4'], 'argument --outpaint: -4 must be at least 0'),
        (['--box', '1,2,3,4', '--invert-mask'], '--invert-mask needs --mask'),
        (['--box', '1,2,3,4', '--guidance', '1'], '--guidance needs --classes'),
    ],
)
def test_options_that_do_not_parse_are_named(files, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit, match='2'):
        inpaint(files, 'a.png', tmp_path, *options)
    assert message in capsys.readouterr().err


def test_images_that_cannot_be_read_are_named(files, tmp_path):
    path = save(tmp_path / 'scene.png', pixels(16, 16))
    with pytest.raises(SystemExit, match='the image .*scenes.png does not exist; did you mean .*scene.png'):
        inpaint(files, str(tmp_path / 'scenes.png'), tmp_path / 'out', '--box', '0,0,4,4')
    Path(path).write_bytes(Path(path).read_bytes()[:-200])
    with pytest.raises(SystemExit, match=r'scene.png: cannot be read as an image'):
        inpaint(files, path, tmp_path / 'out', '--box', '0,0,4,4')


@pytest.mark.parametrize('options', [['--box', '3,3,0,5'], ['--outpaint', '0,0,0,0']])
def test_nothing_to_generate_is_said(files, tmp_path, capsys, options):
    path = save(tmp_path / 'a.png', pixels(16, 16))
    assert inpaint(files, path, tmp_path / 'out', *options) == {}
    shown = capsys.readouterr()
    assert 'a.png: the mask is empty, so that there is nothing to generate' in shown.err
    assert '0 new sample(s) of 0 image(s)' in shown.out


def test_an_empty_folder_and_other_settings_are_refused(files, tmp_path):
    (tmp_path / 'images').mkdir()
    with pytest.raises(SystemExit, match='images: no images found'):
        inpaint(files, str(tmp_path / 'images'), tmp_path / 'out', '--box', '0,0,4,4')
    image = save(tmp_path / 'images/a.png', pixels(16, 16))
    inpaint(files, image, tmp_path / 'out', '--box', '0,0,4,4')
    with pytest.raises(SystemExit, match=r'images of other settings \(box \[0, 0, 4, 4\] -> \[0, 0, 4, 8\]\)'):
        inpaint(files, image, tmp_path / 'out', '--box', '0,0,4,8')


def test_help_imports_neither_torch_nor_mmengine():
    code = (
        f'import runpy, sys\nsys.argv = ["inpaint.py", "--help"]\ntry:\n'
        f'    runpy.run_path({str(TOOL)!r}, run_name="__main__")\nexcept SystemExit:\n    pass\n'
        'assert "torch" not in sys.modules and "mmengine" not in sys.modules'
    )
    shown = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert '--outpaint' in shown.stdout


def test_a_nano_scene_with_the_shipped_weights(small_scenes, tmp_path):
    path = next((small_scenes / 'scenes/val').iterdir())
    image = np.asarray(Image.open(path))
    options = ['--outpaint', '0,0,16,0', '--box', '8,8,12,12', '--num-samples', '1']
    (sample,) = inpaint(NANO, str(path), tmp_path, *options, '--temperature', '2', '--top-p', '0.95').values()
    inside = white_box(64, 64, (8, 8, 12, 12)) > 0
    assert sample.shape == (64, 80, 3)
    assert np.array_equal(sample[:, :64][~inside], image[~inside])
    assert changed(sample[:, :64], image)[inside].mean() > 0.5
    # the new part continues the background of the scene
    assert abs(sample[:, 64:].mean() - image[:, -8:].mean()) < 40


def test_one_run_at_a_time_which_removes_what_a_killed_one_left(files, tmp_path):
    image, out = save(tmp_path / 'a.png', pixels(16, 16)), tmp_path / 'out'
    with lock_folder(out), pytest.raises(SystemExit, match='out is in use by another run'):
        inpaint(files, image, out, '--box', '0,0,4,4')
    inpaint(files, image, out, '--box', '0,0,4,4')
    for partial in (out / '.inpainting.json.0f.partial', out / 'images' / '001' / '.a.png.0f.partial'):
        partial.write_bytes(b'half')
    inpaint(files, image, out, '--box', '0,0,4,4')
    assert not list(out.rglob('.*.partial'))


def test_a_full_disk_is_one_line_with_the_file(files, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, 'No space left on device')

    image = save(tmp_path / 'a.png', pixels(16, 16))
    monkeypatch.setattr(Image.Image, 'save', full)
    with pytest.raises(SystemExit, match=r'^error: .*out/images/000/a.png cannot be written \(No space left'):
        inpaint(files, image, tmp_path / 'out', '--box', '0,0,4,4')


def with_trajectories(files, tmp_path, *options):
    """Inpaint two images, of which one has no mask; read the trajectories."""
    for name, size in {'a': (16, 16), 'b': (12, 14), 'none': (16, 16)}.items():
        save(tmp_path / f'images/{name}.png', pixels(*size, seed=len(name)))
        box = (0, 0, 0, 0) if name == 'none' else (4, 4, 8, 5)
        save(tmp_path / f'masks/{name}.png', white_box(*size, box))
    command = str(tmp_path / 'images'), tmp_path / 'out', '--mask', str(tmp_path / 'masks'), '--trajectories'
    samples = inpaint(files, *command, *options)
    return samples, TrajectoryFiles(tmp_path / 'out/trajectories').read()


def test_trajectories_replay_what_was_inpainted(files, tmp_path):
    samples, (numbers, found, settings) = with_trajectories(files, tmp_path)
    assert numbers == [0, 1, 2, 3]
    names = json.loads((tmp_path / 'out/trajectories/images.json').read_text())
    assert names['000002'] == 'images/000/b.png'
    model = load_model(*files)
    assert settings['weights'] == module_fingerprint(model)
    assert found.generated.view(4, 4, 4).sum((1, 2)).tolist() == [4, 4, 4, 4]
    # the samples of an image answer one question
    first, again, other, _ = questions_of(found)
    assert first == again != other
    sampler = sampler_of(settings, model, model.latent_size)
    log_probs = torch.zeros_like(found.log_probs)
    for step in replay(sampler, found):
        own = step.logits.log_softmax(-1).gather(-1, found.ids[..., None])[..., 0]
        log_probs = torch.where(step.kept, own, log_probs)
    torch.testing.assert_close(log_probs, found.log_probs, rtol=0, atol=1e-5)
    decoded = to_uint8(sampler.finished_pixels(found.ids))
    for number in numbers:
        sample = samples[names[f'{number:06d}'].removeprefix('images/')]
        inside = (slice(4, 9), slice(4, 12))
        assert np.abs(sample[inside].astype(int) - decoded[number][inside]).max() <= 1
    # only generated tokens are drawn again
    chosen = choose_tokens(found.log_probs, found.generated, 0.5)
    ids = redraw_tokens(sampler, found, chosen, redraw_generators(0, 0, numbers)).ids
    assert torch.equal(ids[~chosen], found.ids[~chosen])


def test_missing_trajectories_are_written_and_those_of_other_images_refused(files, tmp_path, capsys):
    _, (_, found, settings) = with_trajectories(files, tmp_path)
    (tmp_path / 'out/trajectories/000002-000003.safetensors').unlink()
    (tmp_path / 'out/images/000/a.png').unlink()
    capsys.readouterr()
    _, (numbers, again, _) = with_trajectories(files, tmp_path)
    assert '3 new sample(s) of 2 image(s)' in capsys.readouterr().out
    assert numbers == [0, 1, 2, 3]
    assert torch.equal(again.ids, found.ids)
    for options in (['--num-samples', '3'], ['--steps', '2']):
        with pytest.raises(SystemExit) as error:
            with_trajectories(files, tmp_path, *options)
        assert 'num_samples is 2, and 3 is needed' in str(error.value.code) or 'steps 3 -> 2' in str(error.value.code)
    save(tmp_path / 'masks/none.png', white_box(16, 16, (0, 0, 4, 4)))
    image, out = str(tmp_path / 'images'), tmp_path / 'out'
    with pytest.raises(SystemExit, match='has the trajectories of another model or sampler: images is'):
        inpaint(files, image, out, '--mask', str(tmp_path / 'masks'), '--trajectories')


def test_trajectories_of_several_tiles_are_refused(files, tmp_path):
    image = save(tmp_path / 'wide.png', pixels(16, 40))
    options = files, image, tmp_path / 'out', '--trajectories', '--box'
    with pytest.raises(SystemExit, match='wide.png needs .* tiles for its mask, and a trajectory is that of one'):
        inpaint(*options, '0,0,40,16')
    assert not list((tmp_path / 'out/images').iterdir())
    inpaint(*options, '12,4,4,4')  # one tile of a larger image
    assert len(TrajectoryFiles(tmp_path / 'out/trajectories').read()[0]) == 2
