# Copyright (c) addp_mm contributors. Apache-2.0.
"""Errors that tools/pretrain_from_folder.py finds before any training, and its exit status."""

import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.own_image_files import write_images
from mmengine.config import Config
from PIL import Image


def interrupted(command, log, progress):
    """Instead of commands: trial steps succeed, the first training is interrupted by Ctrl-C."""
    if 'addp_mm.own_data.trial_steps' not in command:
        raise KeyboardInterrupt
    spec = json.loads(Path(command[3]).read_text())
    Path(command[4]).write_text(
        json.dumps(
            {
                name: dict(parameters=9, **(dict(batch=stage['batch'], seconds=0.1, mib=1) if stage['batch'] else {}))
                for name, stage in spec['stages'].items()
            }
        )
    )
    return 0


def start(images, work, *options, execute=interrupted):
    """Return the exit status, or the last message of the tool."""
    import pretrain_from_folder

    with pytest.raises(SystemExit) as ended:
        pretrain_from_folder.main(
            [
                str(images),
                '--img-size',
                '32',
                '--size',
                'nano',
                '--work-dir',
                str(work),
                '--num-workers',
                '0',
                *options,
            ],
            execute,
        )
    return ended.value.code


def content(folder):
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob('*')
        if path.name != '.lock'
    }


@pytest.fixture(autouse=True)
def plain_text(monkeypatch):
    """Configs are not formatted: it would take most of the time."""
    monkeypatch.setattr(Config, 'pretty_text', property(lambda cfg: f'{cfg.to_dict()}\n'))


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / 'images', 1, count=8)


def test_nothing_is_removed_before_all_checks(tmp_path, images):
    work = tmp_path / 'work'
    assert start(images, work) == 130
    for stage in ('tokenizer', 'predictor', 'addp'):
        (work / stage / 'weights.safetensors').write_text('hours of work')
    before = content(work)
    restart = '--restart-from', 'tokenizer'
    assert 'tokenizr' in start(images, work, *restart, '--cfg-options', 'tokenizr.max_iters=3')
    assert 'depth is not an argument' in start(images, work, *restart, '--cfg-options', 'addp.model.backbone.depth=3')
    assert 'max_iters must be a whole number of at least 3, got' in start(
        images, work, '--restart-from', 'predictor', '--cfg-options', 'predictor.max_iters=abc'
    )
    assert 'no_images' in start(tmp_path / 'no_images', work, *restart)
    assert 'no_extractor.py' in start(images, work, *restart, '--fid-extractor', 'no_extractor.py')
    assert content(work) == before

    def impossible(command, log, progress):
        return 1

    assert 'ended with status 1' in start(images, work, *restart, execute=impossible)
    assert {name for name in before if name.name == 'weights.safetensors'} <= content(work).keys()
    assert start(images, work, *restart, '--cfg-options', 'tokenizer.max_iters=3') == 130
    assert not list(work.rglob('weights.safetensors'))
    assert not list(work.glob('*.new'))
    assert json.loads((work / 'tokenizer/stage.json').read_text())['fitted']['max_iters'] == 3


def test_later_stages_are_checked_before_the_first_is_trained(tmp_path, images, capsys):
    commands = []

    def execute(command, log, progress):
        commands.append(command)
        return interrupted(command, log, progress)

    own_batch = '--cfg-options', 'addp.train_dataloader.batch_size=4'
    assert 'addp: config: model.backbone.depth is not an argument' in start(
        images, tmp_path / 'work', *own_batch, 'addp.model.backbone.depth=3', execute=execute
    )
    assert not commands
    assert not (tmp_path / 'work/tokenizer').exists()
    assert 'addp.train_dataloader.batch_size must be' in start(
        images, tmp_path / 'work', '--cfg-options', 'addp.train_dataloader.batch_size=x', execute=execute
    )
    # The trial builds a stage whose batch is given, but runs no step.
    assert start(images, tmp_path / 'work', *own_batch, execute=execute) == 130
    assert 'all stages except addp take about 0:01:' in capsys.readouterr().out
    stages = json.loads((tmp_path / 'work/trial_spec.json').read_text())['stages']
    assert {name: stage['batch'] is None for name, stage in stages.items()} == dict(
        tokenizer=False, predictor=False, addp=True
    )
    assert json.loads((tmp_path / 'work/addp/stage.json').read_text())['fitted']['batch'] == 4


def test_an_interrupted_export_is_written_again(tmp_path, images):
    options = '--cfg-options', 'tokenizer.max_iters=5'
    assert start(images, tmp_path / 'work', *options) == 130
    run_dir = tmp_path / 'work/tokenizer/run'
    run_dir.mkdir()
    (run_dir / 'iter_5.pth').write_text('')
    (run_dir / 'last_checkpoint').write_text(str(run_dir / 'iter_5.pth'))
    commands = []

    def execute(command, log, progress):
        commands.append(command)
        raise KeyboardInterrupt

    assert start(images, tmp_path / 'work', *options, execute=execute) == 130
    assert 'export_weights' in commands[0][1]
    assert '--overwrite' in commands[0]


@pytest.mark.parametrize(
    'options, words',
    [
        ('--views -1', '--views: -1 must be at least 1'),
        ('--views 0', '--views: 0 must be at least 1'),
        ('--augment none --views 2', "'none' gives 1 to 1 different views"),
        ('--max-broken-share 2', '--max-broken-share: 2 must be from 0 to 1'),
        ('--crop-scale 0 0.5', 'crop_scale must be 0 < smallest'),
        ('--crop-scale 0.2 2', '--crop-scale: 2 must be from 0 to 1'),
        ('--value-range 5 5', 'LOW must be below HIGH'),
        ('--value-range nan 5', '--value-range: nan must be finite'),
        ('--num-workers -1', '--num-workers: -1 must be at least 0'),
        ('--gpus 0', '--gpus: 0 must be at least 1'),
        ('--num-images few', "invalid int value: 'few'"),
        ('--channels 17', '--channels: 17 must be from 1 to 16'),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, capsys, options, words):
    assert start('images', tmp_path / 'work', *options.split()) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
    'option, words',
    [
        ('tokenizer.max_iters=abc', "tokenizer.max_iters must be a whole number of at least 3, got 'abc'"),
        ('addp.batch_size=0', 'addp.batch_size must be a whole number of at least 1, got 0'),
        ('predictor.train_cfg.max_iters=2.5', 'predictor.train_cfg.max_iters must be a whole number'),
    ],
)
def test_invalid_counts_are_refused(tmp_path, images, option, words):
    assert words in start(images, tmp_path / 'work', '--cfg-options', option)
    assert os.listdir(tmp_path / 'work') == ['images.index']


def test_a_refused_folder_is_unchanged(tmp_path, images):
    before = content(tmp_path)
    assert 'is not a work dir of this tool' in start(images, images)
    assert 'no_images' in start(tmp_path / 'no_images', tmp_path / 'work')
    assert content(tmp_path) == before
    # The list of other images is replaced.
    (tmp_path / 'few').mkdir()
    assert 'few' in start(tmp_path / 'few', tmp_path / 'work')
    other = write_images(tmp_path / 'other', 3, count=5)
    assert 'begin with the stage' in start(other, tmp_path / 'work', '--cfg-options', 'max_iters=3')
    assert os.listdir(tmp_path / 'work') == ['images.index']
    assert start(images, tmp_path / 'work') == 130


def test_a_fixed_image_changes_no_stage(tmp_path, images, capsys):
    name = images / '03.png'
    name.write_bytes(b'no image')
    assert start(images, tmp_path / 'work') == 130
    begun = json.loads((tmp_path / 'work/own_data.json').read_text())
    Image.fromarray(np.full((40, 48), 255, np.uint8)).save(name)
    assert start(images, tmp_path / 'work') == 130
    assert json.loads((tmp_path / 'work/own_data.json').read_text()) == begun
    # A restart inspects the images again.
    assert start(images, tmp_path / 'work', '--restart-from', 'tokenizer') == 130
    now = json.loads((tmp_path / 'work/own_data.json').read_text())
    assert now['fingerprint'] == begun['fingerprint']
    assert now['inspected'] != begun['inspected']


def test_a_moved_work_dir_is_refused_until_it_is_restarted(tmp_path, images):
    work, moved = tmp_path / 'work', tmp_path / 'moved'
    assert start(images, work) == 130
    work.rename(moved)
    assert 'moved was moved from' in start(images, moved)
    assert start(images, moved, '--restart-from', 'tokenizer') == 130
    assert start(images, moved) == 130


@pytest.mark.parametrize(
    'old, new', [('--image-size', '--img-size'), ('--samples', '--num-images'), ('--precision', '--amp')]
)
def test_renamed_options_name_the_new_one(tmp_path, capsys, old, new):
    assert start('images', tmp_path / 'work', old, '3') == 2
    assert f'{old} was renamed: use {new}' in capsys.readouterr().err


def test_names_that_are_not_utf8_are_shown_and_written(tmp_path, capsys):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b'/f\xf6lder'))
    write_images(folder, 1, count=8)
    (folder / os.fsdecode(b'br\xf6ken.png')).write_bytes(b'no image')
    for _ in range(2):
        assert start(folder, tmp_path / 'work', '--max-broken-share', '0.5') == 130
    assert 'br\\udcf6ken.png' in capsys.readouterr().out


@pytest.mark.parametrize(
    'name, words',
    [
        ('own_data.json', 'own_data.json is damaged .*--restart-from tokenizer'),
        ('predictor/stage.json', 'predictor/stage.json is damaged .*--restart-from predictor'),
        (
            'tokenizer/weights.safetensors',
            'tokenizer/weights.safetensors is damaged .*Remove it: .*--restart-from tokenizer',
        ),
    ],
)
def test_a_damaged_file_of_the_work_dir_is_named(tmp_path, images, name, words):
    work = tmp_path / 'work'
    assert start(images, work) == 130
    (work / name).write_text('{"images": ')
    assert re.search(words, start(images, work))
    assert start(images, work, *words.split('.*')[-1].split()) == 130


def test_the_exit_status_is_that_of_the_signal(tmp_path, images, capsys):
    def killed(command, log, progress):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        return 0

    assert start(images, tmp_path / 'work', execute=killed) == 143
    assert 'interrupted: the same command continues' in capsys.readouterr().err
    assert start(images, tmp_path / 'work') == 130
