# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/pretrain_from_folder.py: its parts in this process, and whole runs whose commands are forks of one server."""
import hashlib
import json
import os
import signal
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
_TINY = '''
tokenizer.max_iters=6 tokenizer.batch_size=4 tokenizer.model.tokenizer.base_channels=32
tokenizer.model.tokenizer.codebook_size=32 tokenizer.model.tokenizer.num_res_blocks=1
predictor.max_iters=6 predictor.batch_size=4 predictor.model.predictor.embed_dims=16
predictor.model.predictor.num_layers=1 predictor.model.predictor.num_heads=2
predictor.model.predictor.decoder_embed_dims=16 predictor.model.predictor.decoder_num_layers=1
predictor.model.predictor.decoder_num_heads=2 addp.max_iters=6 addp.batch_size=4
addp.model.backbone.arch.embed_dims=16 addp.model.backbone.arch.num_layers=1 addp.model.backbone.arch.num_heads=2
addp.model.neck.num_layers=1 addp.model.neck.num_heads=2'''
TINY = _TINY.split()


@pytest.fixture(scope='module', autouse=True)
def tools_on_path():
    folders = [str(ROOT / 'tools'), str(ROOT / 'tests/configs')]
    sys.path[:0] = folders
    yield
    for folder in folders:
        sys.path.remove(folder)


def write_images(folder, channels, count=24, size=(40, 48)):
    """PNGs of one or three channels, arrays of any other number."""
    generator = np.random.default_rng(channels)
    folder.mkdir(parents=True)
    for index in range(count):
        values = generator.integers(0, 256, (5, 6, channels)).astype(np.uint8)
        values = values.repeat(size[0] // 5, 0).repeat(size[1] // 6, 1)
        if channels in (1, 3):
            Image.fromarray(values[..., 0] if channels == 1 else values).save(folder / f'{index:02d}.png')
        else:
            np.save(folder / f'{index:02d}.npy', values)
    return folder


def pack(folder, shards):
    """The images of a folder in two WebDataset shards."""
    shards.mkdir()
    for shard, names in enumerate(np.array_split(sorted(folder.iterdir()), 2)):
        with tarfile.open(shards / f'{shard}.tar', 'w') as archive:
            for name in names:
                archive.add(name, name.name)
    return shards


def found_in(folder, tmp_path, channels=None, value_range=None):
    from own_data.images import dataset_cfg, find_images
    return find_images(dataset_cfg(str(folder), tmp_path / 'images.index', 0.01), channels, value_range, 'error')


def request_of(tmp_path, **changes):
    from own_data.images import Found
    from own_data.stages import Request
    found = Found(dict(type='addp_mm.ImageFiles', root='photos'), 100_000, 'abc', changes.pop('channels', 3), [0.4] * 5,
                  [0.2] * 5, 300, 50)
    return Request(found, **{**dict(image_size=128, size='small', work_dir=tmp_path), **changes})


@pytest.mark.parametrize(('channels', 'kind'), [(1, 'png'), (3, 'png'), (5, 'npy')])
def test_channels_are_found(tmp_path, channels, kind):
    found = found_in(write_images(tmp_path / 'images', channels), tmp_path)
    assert (found.count, found.channels, found.shortest, found.val_every) == (24, channels, 40, 4)
    assert found.train_count == 18 and len(found.mean) == channels
    stored = np.stack([np.load(p) if kind == 'npy' else np.asarray(Image.open(p)).reshape(40, 48, -1)
                       for p in sorted((tmp_path / 'images').glob(f'*.{kind}'))]) / 255
    assert found.mean == pytest.approx(stored.mean((0, 1, 2)).tolist(), abs=1e-3)
    assert found.std == pytest.approx(stored.std((0, 1, 2)).tolist(), abs=2e-3)


def test_grey_and_colour_together_are_colour_and_other_mixtures_are_refused(tmp_path):
    from addp_mm.datasets import DatasetError
    folder = write_images(tmp_path / 'images', 3)
    Image.new('L', (50, 50)).save(folder / 'grey.png')
    Image.new('RGBA', (50, 50)).save(folder / 'transparent.png')
    assert found_in(folder, tmp_path / 'a').channels == 3
    np.save(folder / 'bands.npy', np.zeros((50, 50, 7), np.uint8))
    with pytest.raises(DatasetError, match=r'3 \(25 of those .*; 7 \(1 of those .*bands.npy\). Give --channels'):
        found_in(folder, tmp_path / 'b')


def test_floats_need_a_range(tmp_path):
    from addp_mm.datasets import DatasetError
    (tmp_path / 'images').mkdir()
    for index in range(5):
        np.save(tmp_path / 'images' / f'{index}.npy', np.full((40, 40), 3.0 * index, np.float32))
    with pytest.raises(DatasetError, match='lie between 0 and 0. Give --value-range LOW HIGH'):
        found_in(tmp_path / 'images', tmp_path)
    found = found_in(tmp_path / 'images', tmp_path, value_range=(0, 12))
    assert found.channels == 1 and found.mean == [0.5]


def test_shards_are_looked_at_like_folders(tmp_path):
    folder = write_images(tmp_path / 'images', 3)
    shards = found_in(pack(folder, tmp_path / 'shards') / '*.tar', tmp_path / 'a')
    files = found_in(folder, tmp_path / 'b')
    assert shards.dataset['type'] == 'addp_mm.WebDatasetImages'
    assert (shards.count, shards.channels, shards.mean) == (files.count, files.channels, files.mean)


def test_sources_are_told_apart(tmp_path):
    from own_data.images import dataset_cfg
    for name, kind in {'a.lmdb': 'LMDBImages', 'shards/*.tar': 'WebDatasetImages', 'photos': 'ImageFiles'}.items():
        assert dataset_cfg(str(tmp_path / name), tmp_path / 'index', 0.1)['type'] == f'addp_mm.{kind}'


@pytest.mark.parametrize('size', ['nano', 'small', 'base', 'large'])
@pytest.mark.parametrize('channels', [3, 5])
def test_every_size_builds(tmp_path, size, channels):
    from mmengine.registry import init_default_scope
    from own_data.schedule import accumulate
    from own_data.stages import build_configs
    from recipes import build_on_meta

    from addp_mm.engine.config_check import check_config
    configs = build_configs(request_of(tmp_path, size=size, channels=channels))
    init_default_scope('mmpretrain')
    tokens = (128 // (16 if size in ('base', 'large') else 8))**2
    for stage, cfg in configs.items():
        own = cfg.pop('own_data')
        assert own.max_iters == min(cfg.train_cfg.max_iters, -(-own.max_passes * 98_000 // own.batch_size))
        accumulate(cfg, own.batch_size // 4, 4)
        assert cfg.train_cfg.max_iters == 4 * own.max_iters == cfg.param_scheduler[-1].end
        check_config(cfg, needed=('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'))
        model = build_on_meta(cfg)
        if stage == 'tokenizer':
            assert model.tokenizer.in_channels == channels
        elif stage == 'predictor':
            assert model.predictor.num_tokens == tokens
        else:
            assert model.in_channels == channels and model.latent_size[0]**2 == tokens
            assert cfg.model.get('pixel_mean') == (None if channels == 3 else [0.4] * 5)


def test_options_and_configs_of_the_user_win(tmp_path):
    from own_data.stages import build_configs, options_by_stage

    from addp_mm.engine.config_file import ConfigError
    (tmp_path / 'mine.py').write_text(
        'own_data = dict(max_iters=7000)\nmodel = dict(tokenizer=dict(codebook_size=512), quantize_from=3)\n'
        'train_dataloader = dict(num_workers=9)\n')
    options = options_by_stage(['predictor.batch_size=64', 'addp.train_dataloader.batch_size=5',
                                'addp.model.neck.num_layers=3'])
    request = request_of(tmp_path, configs=dict(tokenizer=str(tmp_path / 'mine.py')), options=options)
    configs = build_configs(request)
    tokenizer = configs['tokenizer']
    assert tokenizer.own_data.max_iters == tokenizer.train_cfg.max_iters == 7000
    assert tokenizer.train_dataloader.num_workers == 9 and tokenizer.model.quantize_from == 3
    assert tokenizer.model.restart_until == 2800  # 40 % of the steps, as in the preset
    assert tokenizer.val_evaluator[-1].codebook_size == 512
    assert configs['predictor'].model.predictor.token_space.codebook_size == 512
    assert configs['predictor'].own_data.batch_size == 64
    assert 'own_data' not in configs['addp'] and configs['addp'].model.neck.num_layers == 3
    assert configs['addp'].model.head.token_space.codebook_size == 512
    with pytest.raises(ConfigError, match='begin with the stage.*did you mean predictor'):
        options_by_stage(['predicter.max_iters=3'])
    with pytest.raises(ConfigError, match='takes multiples of 8 px, as 96 or 104'):
        build_configs(request_of(tmp_path, image_size=100))


def test_few_images_shorten_the_training(tmp_path):
    from own_data.stages import build_configs
    request = request_of(tmp_path)
    few = type(request.found)(**{**vars(request.found), 'count': 1000})
    own = build_configs(type(request)(**{**vars(request), 'found': few}))['predictor'].own_data
    assert own.max_iters == -(-1600 * 980 // 256)


class FakeTrial:
    """Takes so many bytes an image."""
    optim_wrapper = type('Wrapper', (), dict(zero_grad=lambda self: None))()

    def __init__(self, each, limit=float('inf')):
        self.each, self.limit, self.steps, self.used = each, limit, [], 0

    def step(self, batch):
        self.steps.append(batch)
        self.used = 1000 + batch * self.each
        if self.used > self.limit:
            raise torch.cuda.OutOfMemoryError
        return 0.01


def test_batches_grow_on_a_cpu_while_memory_allows(monkeypatch):
    from own_data import trial_steps
    trial = FakeTrial(each=10)
    monkeypatch.setattr(trial_steps, 'peak_memory', lambda: trial.used)
    monkeypatch.setattr(trial_steps, 'forget_peak', lambda: None)
    assert trial_steps.fit_on_cpu(trial, 64, limit=4000)[0] == 64
    trial.steps.clear()
    batch, _, peak = trial_steps.fit_on_cpu(trial, 1000, limit=4000)
    # 1000 halved is 500, 250, …; 250 need 3,500
    assert batch == 250 and peak == 3500 and max(trial.steps) == 250


def test_batches_are_halved_on_a_gpu_until_they_fit(monkeypatch):
    from own_data import trial_steps
    trial = FakeTrial(each=100, limit=10_000)
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda: (10_000, 20_000))
    monkeypatch.setattr(torch.cuda, 'memory_reserved', lambda: 0)
    monkeypatch.setattr(torch.cuda, 'reset_peak_memory_stats', lambda: None)
    monkeypatch.setattr(torch.cuda, 'max_memory_reserved', lambda: trial.used)
    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: None)
    # 128 and 85 do not fit, 64 images need 7,400 of the 9,000 bytes that are allowed
    assert trial_steps.fit_on_gpu(trial, 128)[0] == 64
    with pytest.raises(SystemExit, match='a single image does not fit'):
        trial_steps.fit_on_gpu(FakeTrial(each=20_000, limit=10_000), 4)


def test_memory_that_a_control_group_allows(tmp_path):
    from own_data.trial_steps import available_memory
    (tmp_path / 'meminfo').write_text('MemTotal: 9000 kB\nMemAvailable:    5000 kB\n')
    assert available_memory(tmp_path / 'meminfo', tmp_path) == 5000 * 1024
    (tmp_path / 'memory.max').write_text('max\n')
    (tmp_path / 'memory.current').write_text('100\n')
    assert available_memory(tmp_path / 'meminfo', tmp_path) == 5000 * 1024
    (tmp_path / 'memory.max').write_text('4100\n')
    assert available_memory(tmp_path / 'meminfo', tmp_path) == 4000


def test_a_work_dir_belongs_to_one_run_at_a_time_and_to_one_set_of_images(tmp_path):
    from own_data.state import StateError, begin_anew, claim, lock
    held = lock(tmp_path)
    with pytest.raises(StateError, match=f'in use by a run that process {os.getpid()} began'):
        lock(tmp_path)
    held.close()
    claim(tmp_path, dict(images='a', channels=3))
    claim(tmp_path, dict(images='a', channels=3))
    with pytest.raises(StateError, match='channels 3 -> 1'):
        claim(tmp_path, dict(images='a', channels=1))
    other = tmp_path / 'other'
    (other / 'addp').mkdir(parents=True)
    with pytest.raises(StateError, match='holds addp and is no work dir'):
        claim(other, dict(images='a'))
    begin_anew(other, 'tokenizer')
    assert (other / 'addp').is_dir(), 'a folder that is not this tool\'s was emptied'


def test_ends_are_foretold_from_the_log(tmp_path):
    from own_data.progress import Clock, duration, training_seconds
    folder = tmp_path / '20260101' / 'vis_data'
    folder.mkdir(parents=True)
    records = [dict(iter=10, time=2.0, loss=5.0), dict(iter=20, time=1.0, loss=4.0), dict(PSNR=20.0, step=20)]
    (folder / 'scalars.json').write_text(''.join(json.dumps(r) + '\n' for r in records) + '{"iter": 3')
    clock = Clock(dict(tokenizer=0., predictor=100., addp=500.))
    line = clock.line('predictor', tmp_path, 80)
    assert line.startswith('predictor: 20 of 80 iterations (25%), loss 4;')
    assert clock.all_left() == 560
    assert training_seconds(tmp_path) == 2.0 + 10 * 1.0
    assert [duration(seconds) for seconds in (9, 95, 3700)] == ['9 s', '1 min 35 s', '1 h 01 min']


def execution(run_tool, at_start=lambda command: None):
    """What runs a command as a fork of the tool server, its output in the log."""
    def execute(command, log, progress):
        at_start(command)
        name = os.path.relpath(command[1], ROOT / 'tools')
        finished = run_tool(name, *command[2:])
        with log.open('a') as stream:
            stream.write(finished.output)
        progress()
        return finished.status
    return execute


def run(tmp_path, images, execute, *options, changes=()):
    import pretrain_from_folder
    work = tmp_path / 'work'
    pretrain_from_folder.main([
        str(images), '--image-size', '32', '--size', 'nano', '--work-dir', str(work), '--num-workers', '0', '--samples',
        '2', '--views', '2', *options, '--cfg-options', *TINY, *changes], execute)
    return work


def write_extractor(folder, channels):
    """A config that defines a tiny ViT as extractor, and its weights."""
    from addp_mm.registry import MODELS
    backbone = dict(type='addp_mm.ADDPViT', arch=dict(embed_dims=4, num_layers=1, num_heads=2), img_size=32,
                    patch_size=16, in_channels=channels, out_type='avg_featmap')
    torch.manual_seed(0)
    torch.save(MODELS.build(backbone).state_dict(), folder / 'vit.pth')
    backbone['init_cfg'] = dict(type='addp_mm.Pretrained', checkpoint=str(folder / 'vit.pth'))
    extractor = dict(type='addp_mm.BackboneFeatures', name='of-five', backbone=backbone, mean=[0.5] * channels,
                     std=[0.5] * channels)
    (folder / 'extractor.py').write_text(f'extractor = {extractor!r}\n')
    return str(folder / 'extractor.py')


@pytest.mark.slow
def test_five_channels_end_to_end(tmp_path, run_tool, capsys):
    images = write_images(tmp_path / 'images', 5)
    work = run(tmp_path, images, execution(run_tool), '--fid-extractor', write_extractor(tmp_path, 5))
    measured = {key: value for stage in ('tokenizer', 'predictor')
                for key, value in json.loads((work / stage / 'metrics.json').read_text()).items()}
    assert measured.keys() == {
        'reconstruction/psnr', 'reconstruction/ssim', 'reconstruction/rfid[of-five]', 'codebook/usage',
        'codebook/perplexity', *(f'predictor/{what}@{share}' for what in ('accuracy', 'cross_entropy')
                                 for share in ('0.50', '0.75', '0.95'))}
    assert measured['predictor/cross_entropy@0.50'] < 2 * np.log(32) and measured['reconstruction/rfid[of-five]'] > 0
    weights = load_file(work / 'addp/weights.safetensors')
    assert weights['backbone.patch_embed.projection.weight'].shape[1] == 5
    assert 'patch_embed.projection.weight' in load_file(work / 'addp/backbone.safetensors')
    assert torch.equal(weights['tokenizer.codes.weight'],
                       load_file(work / 'tokenizer/weights.safetensors')['codes.weight'])
    assert len(list((work / 'addp/samples/images').glob('*.png'))) == 2
    page = (work / 'report.html').read_text()
    assert '24 images with 5 channels, 6 of them held out' in page and page.count('<img') >= 3
    assert 'rFID in features of of-five' in page and 'accuracy, masked share 0.75' in page
    said = capsys.readouterr().out
    assert '24 images are few' in said and 'all stages together take about' in said
    assert '$ python tools/train.py' in said

    # the same again does nothing but the page; other options are refused in words; so is an edited config
    run(tmp_path, images, execution(run_tool), '--fid-extractor', write_extractor(tmp_path, 5))
    said = capsys.readouterr().out
    assert said.count('done before') == 3 and '$ python' not in said
    # other metrics train nothing anew
    run(tmp_path, images, execution(run_tool))
    said = capsys.readouterr().out
    assert said.count('$ python') == 1 and 'tools/test.py' in said
    assert 'reconstruction/rfid[of-five]' not in json.loads((work / 'tokenizer/metrics.json').read_text())
    with pytest.raises(SystemExit, match=r'begun with other options: own_data.max_iters 6 -> 7'):
        run(tmp_path, images, execution(run_tool), changes=['predictor.max_iters=7'])
    with (work / 'addp/config.py').open('a') as file:
        file.write('\n')
    with pytest.raises(SystemExit, match=r'was edited since.*--addp-config, and --restart-from addp'):
        run(tmp_path, images, execution(run_tool))


def kill_child_when(path, server):
    """Kill what the tool server runs as soon as a file is there."""
    def watch():
        while not path.exists():
            time.sleep(0.005)
        children = Path(f'/proc/{server.process.pid}/task/{server.process.pid}/children').read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
    threading.Thread(target=watch, daemon=True).start()


@pytest.mark.slow
def test_a_killed_predictor_goes_on_to_the_same_weights(tmp_path, run_tool):
    """On shards, where the other run is on files."""
    images, longer = pack(write_images(tmp_path / 'images', 1), tmp_path / 'shards'), ['predictor.max_iters=60']
    checkpoint = tmp_path / 'work/predictor/run/iter_10.pth'

    def at_start(command):
        if 'train.py' in command[1] and 'predictor' in command[2]:
            kill_child_when(checkpoint, run_tool)

    with pytest.raises(SystemExit, match='(?s)ended with status -9.*goes on from here'):
        run(tmp_path, images, execution(run_tool, at_start), changes=longer)
    assert list(checkpoint.parent.glob('iter_*.pth')) and not (tmp_path / 'work/predictor/weights.safetensors').exists()
    commands = []
    work = run(tmp_path, images, execution(run_tool, commands.append), changes=longer)
    trained = [command[2] for command in commands if 'train.py' in command[1]]
    assert [Path(config).parent.name for config in trained] == ['predictor', 'addp']
    assert 'resume' in (work / 'predictor/train.log').read_text()

    def digest():
        return hashlib.sha256(b''.join(value.numpy().tobytes() for _, value in sorted(
            load_file(work / 'predictor/weights.safetensors').items()))).hexdigest()

    def only_the_predictor(command):
        if 'addp' in command[2]:
            raise KeyboardInterrupt

    resumed = digest()
    with pytest.raises(SystemExit, match='interrupted: the same command goes on'):
        run(tmp_path, images, execution(run_tool, only_the_predictor), '--restart-from', 'predictor', changes=longer)
    assert digest() == resumed and not (work / 'addp/weights.safetensors').exists()
