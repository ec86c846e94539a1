# Copyright (c) addp_mm contributors. Apache-2.0.
"""The tool that stores token ids, run in this process or, to kill it, in a fork."""

import importlib.util
import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tqdm import tqdm

from addp_mm.datasets.tokens.fingerprints import build_loaded, tokenizer_fingerprint
from addp_mm.datasets.tokens.token_ids import TokenIds
from addp_mm.datasets.views.views import Views
from addp_mm.registry import MODELS

TOOL = Path(__file__).parents[2] / 'tools/dataset_converters/tokenize_images.py'
TOKENIZER = dict(
    type='addp_mm.VQTokenizer',
    stem_stride=4,
    base_channels=32,
    channel_mults=(1,),
    num_res_blocks=1,
    num_mid_blocks=1,
    codebook_size=64,
    embed_dims=4,
    normalize_codes=True,
)
CONFIG = """
model = dict(type='addp_mm.TokenizerPretrain', tokenizer={tokenizer!r})
train_dataloader = dict(dataset=dict(type='CustomDataset', data_root={images!r}, with_label=False,
                                     pipeline=[dict(type='addp_mm.LoadImage'), dict(type='PackInputs')]))
default_scope = 'mmpretrain'
"""
NUM_IMAGES = 13


@pytest.fixture(scope='module', autouse=True)
def home(tmp_path_factory):
    """Lists of images are kept in the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('HOME', str(tmp_path_factory.mktemp('home')))
        yield


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('tokenize_images', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    """Images in two folders; a tokenizer as config and checkpoint, and as weights with a config."""
    folder = tmp_path_factory.mktemp('tokenize')
    for index in range(NUM_IMAGES):
        path = folder / 'images' / 'ab'[index % 2] / f'{index:02d}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        small = np.random.default_rng(index).integers(0, 256, (4, 5, 3)).astype(np.uint8)
        Image.fromarray(small).resize((25, 20), Image.Resampling.BICUBIC).save(path)
    torch.manual_seed(0)
    weights = MODELS.build(dict(TOKENIZER)).state_dict()
    torch.save(dict(state_dict={f'tokenizer.{key}': value for key, value in weights.items()}), folder / 'training.pth')
    (folder / 'training.py').write_text(CONFIG.format(tokenizer=TOKENIZER, images=str(folder / 'images')))
    save_file(weights, folder / 'vq.safetensors')
    (folder / 'vq.json').write_text(json.dumps(dict(tokenizer=dict(TOKENIZER, init_cfg=dict(checkpoint='moved.pth')))))
    return folder


def arguments(inputs, dst, *options, images='images'):
    return [
        str(inputs / 'vq.safetensors'),
        str(inputs / images),
        str(dst),
        '--img-size',
        '16',
        '--views',
        '3',
        '--batch-size',
        '6',
        '--num-workers',
        '0',
        *options,
    ]


def names(inputs):
    return sorted(str(path.relative_to(inputs / 'images')) for path in (inputs / 'images').rglob('*.png'))


@pytest.fixture(scope='module')
def stored(tool, inputs):
    """The ids of an uninterrupted run."""
    tool.main(arguments(inputs, inputs / 'stored'))
    return inputs / 'stored'


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_ids_are_those_of_the_views(stored, inputs):
    tokenizer = build_loaded(
        dict(
            TOKENIZER, init_cfg=dict(type='addp_mm.Pretrained', checkpoint=str(inputs / 'vq.safetensors'), strict=True)
        )
    )
    ids = np.load(stored / 'ids.npy')
    assert ids.shape == (NUM_IMAGES, 3, 16)
    assert ids.dtype == np.uint16
    assert len(np.unique(ids)) > 3
    for index, name in enumerate(names(inputs)):
        pixels = np.asarray(Image.open(inputs / 'images' / name))
        views = torch.from_numpy(Views(16, count=3).make(pixels, index)).float() / 255
        with torch.no_grad():
            assert np.array_equal(ids[index], tokenizer.encode(views)[0].numpy()), name


def test_recorded_settings(stored, inputs):
    about = json.loads((stored / 'tokens.json').read_text())
    assert about['images']['count'] == about['done'] == NUM_IMAGES
    assert about['broken'] == []
    assert about['views'] == dict(
        image_size=16, count=3, augmentation='crop', crop_scale=[0.2, 1.0], interpolation='bicubic', seed=0
    )
    assert sorted(content(stored)) == ['ids.npy', 'tokens.json']
    own = dict(
        TOKENIZER,
        init_cfg=dict(
            type='addp_mm.Pretrained', checkpoint=str(inputs / 'training.pth'), prefix='tokenizer.', strict=True
        ),
    )
    assert about['tokenizer']['fingerprint'] == tokenizer_fingerprint(build_loaded(own), own)
    assert len(TokenIds(stored, tokenizer=own, views=about['views'])) == NUM_IMAGES


def test_the_same_again_does_nothing(tool, stored, inputs, capsys):
    before = content(stored)
    tool.main(arguments(inputs, stored))
    assert 'nothing done' in capsys.readouterr().out
    assert content(stored) == before


@pytest.mark.parametrize('device', ['foo', 'cuda:99'])
def test_a_missing_device_is_refused_before_anything_is_written(tool, inputs, tmp_path, device):
    with pytest.raises(SystemExit, match=f'error: --device {device}: this PyTorch cannot use the device'):
        tool.main(arguments(inputs, tmp_path / 'ids', '--device', device))
    assert not (tmp_path / 'ids').exists()


@pytest.mark.parametrize('options', [('--num-workers', '2'), ('--batch-size', '3'), ('--save-seconds', '0')])
def test_neither_workers_nor_saving_matter(tool, stored, inputs, tmp_path, options):
    tool.main(arguments(inputs, tmp_path / 'ids', *options))
    assert (tmp_path / 'ids/ids.npy').read_bytes() == (stored / 'ids.npy').read_bytes()


@pytest.mark.slow
def test_the_same_tokenizer_and_images_in_other_forms(tool, stored, inputs, tmp_path):
    """A training's config with its checkpoint, and a dataset's config."""
    ids = (stored / 'ids.npy').read_bytes()
    for number, images in enumerate(('images', 'training.py')):
        argv = arguments(inputs, tmp_path / str(number), images=images)
        tool.main([str(inputs / 'training.py'), *argv[1:], '--checkpoint', str(inputs / 'training.pth')])
        assert (tmp_path / str(number) / 'ids.npy').read_bytes() == ids


def start(tool, argv):
    """Start the tool in a forked process, which can be killed."""

    def main():
        # If it is killed while it has the lock that tqdm shares among forks, this process would
        # wait forever.
        tqdm.set_lock(threading.RLock())
        tool.main(argv)

    process = multiprocessing.get_context('fork').Process(target=main)
    process.start()
    return process


def run_until_saved(tool, argv, dst, rows):
    """Run until ``rows`` are recorded as saved, then kill the process."""
    process = start(tool, argv)
    until = time.monotonic() + 60
    while process.is_alive() and time.monotonic() < until:
        about = dst / 'tokens.json'
        if about.is_file() and json.loads(about.read_text())['done'] >= rows:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.001)
    process.join(60)
    return process.exitcode


class Slowed:
    """A tool whose tokenizer waits after each batch, so that it is killed during its work."""

    def __init__(self, tool, seconds):
        self.tool, self.seconds = tool, seconds

    def main(self, argv):
        encode = MODELS.get('addp_mm.VQTokenizer').encode

        def slow(tokenizer, images):
            time.sleep(self.seconds)
            return encode(tokenizer, images)

        MODELS.get('addp_mm.VQTokenizer').encode = slow
        self.tool.main(argv)


@pytest.mark.parametrize('rows', [0, 2, 8, 12])
def test_a_killed_run_continues_to_the_same_bytes(tool, stored, inputs, tmp_path, rows):
    dst = tmp_path / 'ids'
    argv = arguments(inputs, dst, '--save-seconds', '0')
    assert run_until_saved(Slowed(tool, 0.05), argv, dst, rows) == -signal.SIGKILL
    about = json.loads((dst / 'tokens.json').read_text())
    assert rows <= about['done'] < NUM_IMAGES
    assert not (dst / 'ids.npy').exists()
    with pytest.raises(ValueError, match='is incomplete'):
        TokenIds(dst)
    tool.main(argv)
    assert content(dst) == content(stored)


def test_an_interruption_saves_finished_ids(tool, stored, inputs, tmp_path):
    """SIGTERM, with a save interval of hours."""
    dst = tmp_path / 'ids'
    argv = arguments(inputs, dst, '--save-seconds', '9999')
    process = start(Slowed(tool, 0.2), argv)
    until = time.monotonic() + 60
    while not (dst / 'ids.npy.partial').is_file() and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.5)
    process.terminate()
    process.join(60)
    assert process.exitcode == 128 + signal.SIGTERM
    assert 0 < json.loads((dst / 'tokens.json').read_text())['done'] < NUM_IMAGES
    tool.main(argv)
    assert content(dst) == content(stored)


def test_shards_hold_the_same_ids(tool, stored, inputs, tmp_path):
    for index in (2, 0, 1):
        tool.main(arguments(inputs, tmp_path / 'ids', '--shard', f'{index}/3'))
    parts = [np.load(tmp_path / f'ids/shard-000{index}-of-0003/ids.npy') for index in range(3)]
    assert [len(part) for part in parts] == [4, 4, 5]
    assert np.array_equal(np.concatenate(parts), np.load(stored / 'ids.npy'))
    whole, sharded = TokenIds(stored, random_view=False), TokenIds(tmp_path / 'ids', random_view=False)
    assert all(torch.equal(whole[k]['inputs'], sharded[k]['inputs']) for k in range(NUM_IMAGES))


def refused(tool, capsys, argv):
    with pytest.raises(SystemExit) as end:
        tool.main(argv)
    return str(end.value) + capsys.readouterr().err


def test_another_tokenizer_other_images_or_views_are_not_mixed_in(tool, stored, inputs, tmp_path, capsys):
    before = content(stored)
    assert 'views.seed is 0, but 1 is needed' in refused(tool, capsys, arguments(inputs, stored, '--seed', '1'))
    message = refused(tool, capsys, arguments(inputs, stored, '--views', '2'))
    assert 'views.count is 3, but 2 is needed' in message
    assert 'images.fingerprint' in refused(tool, capsys, arguments(inputs, stored, images='images/a'))
    torch.manual_seed(1)
    save_file(MODELS.build(dict(TOKENIZER)).state_dict(), tmp_path / 'vq.safetensors')
    (tmp_path / 'vq.json').write_text((inputs / 'vq.json').read_text())
    message = refused(tool, capsys, [str(tmp_path / 'vq.safetensors'), *arguments(inputs, stored)[1:]])
    assert message.startswith(f'error: {stored} has ids of other settings: tokenizer.fingerprint is')
    assert content(stored) == before


@pytest.fixture
def with_broken(inputs, tmp_path):
    """The same images, of which two cannot be read."""
    import shutil

    folder = tmp_path / 'with_broken'
    shutil.copytree(inputs / 'images', folder / 'images')
    (folder / 'images/a/04.png').write_bytes((inputs / 'images/a/04.png').read_bytes()[:60])
    (folder / 'images/b/05.png').write_bytes(b'')
    for name in ('vq.safetensors', 'vq.json'):
        shutil.copy(inputs / name, folder)
    return folder


def test_broken_images_are_named_recorded_and_skipped(tool, stored, with_broken, tmp_path, capsys):
    argv = arguments(with_broken, tmp_path / 'ids')
    tool.main(argv)
    assert '2 images could not be read and are skipped' in capsys.readouterr().out
    recorded = json.loads((tmp_path / 'ids/tokens.json').read_text())['broken']
    listed = names(with_broken)
    assert [image['name'] for image in recorded] == ['a/04.png', 'b/05.png']
    assert [image['index'] for image in recorded] == [listed.index('a/04.png'), listed.index('b/05.png')]
    assert all('cannot be read as an image' in image['reason'] for image in recorded)
    data, whole = TokenIds(tmp_path / 'ids', random_view=False), np.load(stored / 'ids.npy')
    good = [k for k, name in enumerate(listed) if name not in ('a/04.png', 'b/05.png')]
    assert [data[k]['inputs'].tolist() for k in range(len(data))] == whole[good, 0].tolist()


def test_too_many_broken_images_stop_the_run_with_their_names(tool, with_broken, tmp_path, capsys):
    listed = names(with_broken)
    for name in listed[:-1]:
        (with_broken / 'images' / name).write_bytes(b'')
    argv = arguments(with_broken, tmp_path / 'ids', '--max-broken-share', '0.1')
    message = refused(tool, capsys, argv)
    assert '12 of the first 12' in message
    assert 'more than --max-broken-share 0.1 of 13 and 10 more' in message
    assert f'{listed[0]} (' in message
    assert f'{listed[9]} (' in message
    assert str(tmp_path / 'ids/tokens.json') in message
    tool.main([*argv[:-1], '0.2'])
    assert len(TokenIds(tmp_path / 'ids')) == 1


def test_grey_images_for_a_grey_tokenizer(tool, inputs, tmp_path):
    torch.manual_seed(0)
    grey = dict(TOKENIZER, in_channels=1)
    save_file(MODELS.build(dict(grey)).state_dict(), tmp_path / 'grey.safetensors')
    (tmp_path / 'grey.json').write_text(json.dumps(dict(tokenizer=grey)))
    tool.main([str(tmp_path / 'grey.safetensors'), *arguments(inputs, tmp_path / 'ids')[1:]])
    assert len(np.unique(np.load(tmp_path / 'ids/ids.npy'))) > 3


def test_images_of_another_number_of_channels(tool, inputs, tmp_path):
    """A grey tokenizer needs images of one channel: one of three is named."""
    data = tool.image_loader(3, {})
    assert type(data).__name__ == 'LoadImage'
    from addp_mm.datasets.listed.open_images import open_images
    from addp_mm.datasets.views.views_dataset import ViewsDataset

    views = ViewsDataset(open_images(str(inputs / 'images')), Views(16), 1, data, 0, 2)
    pixels, problem = views[0]
    assert not pixels.any()
    assert problem == ('a/00.png', 'it has 3 channels, the tokenizer takes 1')


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(tokenizer='lost.safetensors'), 'tokenizer lost.safetensors does not exist'),
        (dict(tokenizer='{inputs}/training.pth'), 'has no config {inputs}/training.json'),
        (dict(tokenizer='{inputs}/training.py'), 'the tokenizer has no trained weights'),
        (dict(images='{inputs}/lost'), 'does not exist'),
        (dict(size='18'), 'multiples of the tokenizer'),
        (dict(shard='3/3'), 'expected I/N with I from 0 to N - 1'),
        (dict(shard='1/99'), 'too few for 99 parts'),
    ],
)
def test_mistakes_are_named(tool, inputs, tmp_path, capsys, change, words):
    defaults = dict(tokenizer=str(inputs / 'vq.safetensors'), images=str(inputs / 'images'), size='16', shard='0/1')
    given = {**defaults, **{key: value.format(inputs=inputs) for key, value in change.items()}}
    message = refused(
        tool,
        capsys,
        [
            given['tokenizer'],
            given['images'],
            str(tmp_path / 'ids'),
            '--img-size',
            given['size'],
            '--shard',
            given['shard'],
            '--num-workers',
            '0',
        ],
    )
    assert words.format(inputs=inputs) in message
    assert not (tmp_path / 'ids').exists()
