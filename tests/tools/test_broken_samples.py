# Copyright (c) addp_mm contributors. Apache-2.0.
"""Trainings whose images disappear or are damaged meanwhile, through the tools."""

import shutil
import subprocess
import sys

import pytest
import torch
from helpers.checked_data import change_json
from helpers.run_tools import ROOT

DET = ROOT / 'configs/det/mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px.py'


@pytest.fixture
def data(workplace, tmp_path):
    return shutil.copytree(workplace / 'data', tmp_path / 'data')


@pytest.fixture
def train(run_tool, data, tmp_path):
    """Train the tiny classifier on a copy of its data, in three epochs of four iterations."""

    def run(name, *options, hooks=(), arguments=()):
        hooks = [dict(type='BreakFiles', iteration=1, **hook) for hook in hooks]
        settings = [
            *(f'{loader}_dataloader.dataset.data_root={data}' for loader in ('train', 'val')),
            'train_cfg.max_epochs=3',
            f'custom_hooks={hooks}',
            *(["custom_imports=dict(imports=['helpers.kill_at'])"] if hooks else []),
            *options,
        ]
        return run_tool('train.py', 'tiny.py', '--work-dir', tmp_path / name, *arguments, '--cfg-options', *settings)

    return run


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


@pytest.mark.parametrize('num_workers', [0, 2])
def test_a_training_goes_on_and_resumes_exactly_after_an_image_was_damaged(train, data, tmp_path, num_workers):
    hook = dict(paths=[str(data / 'train/dark/3.png')], content='no image')
    workers = f'train_dataloader.num_workers={num_workers}'
    finished = train('whole', workers, hooks=[hook])
    assert finished.status == 0, finished.output
    assert finished.output.count('dark/3.png') == 2, finished.output  # when it is found, and in the list below
    assert (
        f'1 broken samples were replaced by others in this training; they are listed in {tmp_path}' in finished.output
    )
    assert '/dark/3.png' in (tmp_path / 'whole/broken_samples.txt').read_text()

    # the file is already damaged when the resumed training checks its data
    resumed = train('resumed', workers, arguments=('--resume', tmp_path / 'whole/epoch_2.pth'))
    assert resumed.status == 0, resumed.output
    assert 'The training uses other samples instead.' in resumed.output
    whole, other = (weights(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'resumed'))
    assert all(torch.equal(value, other[key]) for key, value in whole.items())


def test_above_the_share_the_training_stops_with_the_list(train, data, tmp_path):
    hook = dict(paths=[str(path) for path in sorted(data.glob('train/*/*.png'))[:12]], content='no image')
    finished = train('stopped', 'train_dataloader.num_workers=2', hooks=[hook])
    last = finished.output.strip().splitlines()[-1]
    assert (finished.status, last[:40]) == (1, 'error: 11 samples are broken, 10 are all'), finished.output
    assert '/train/' in last
    assert f'All are listed in {tmp_path}/stopped/broken_samples.txt. Repair them and resume.' in last
    assert 'default_hooks.broken_samples.max_broken_share=0.0625' in last
    assert 'Traceback' not in finished.output


def test_a_validation_image_is_named_and_not_replaced(train, data, tmp_path):
    hook = dict(paths=[str(data / 'val/light/2.png')])
    finished = train('val', 'val_dataloader.num_workers=1', hooks=[hook])
    last = finished.output.strip().splitlines()[-1]
    assert finished.status == 1, finished.output
    assert last.startswith(f"error: [Errno 2] No such file or directory: '{data}/val/light/2.png'")
    assert 'This sample is not of the training data, and no other one may replace it.' in last
    assert 'Traceback' not in finished.output


def test_without_the_hook_the_error_is_that_of_the_packages(train, data):
    hook = dict(paths=[str(data / 'train/dark/3.png')], content='no image')
    finished = train('off', 'default_hooks.broken_samples=None', hooks=[hook])
    assert finished.status == 1
    assert 'AssertionError: failed to load image' in finished.output


@pytest.mark.slow
def test_a_detector_leaves_out_faulty_annotations_and_images_that_disappear(small_scenes, tmp_path):
    scenes = shutil.copytree(small_scenes, tmp_path / 'scenes')
    path = scenes / 'annotations/instances_train.json'

    def spoil(content):
        first, second, third = content['annotations'][:3]
        first['bbox'], second['category_id'], third['area'] = [float('nan'), 1, 2, 3], 99, 0

    change_json(path, spoil)
    gone = sorted(scenes.glob('scenes/train/*.png'))[1]
    hooks = [dict(type='BreakFiles', iteration=0, paths=[str(gone)])]
    settings = ["custom_imports=dict(imports=['addp_mm', 'helpers.kill_at'])", f'custom_hooks={hooks}']
    settings += [
        f'train_dataloader.dataset.data_root={scenes}',
        'train_dataloader.batch_size=2',
        'train_dataloader.num_workers=2',
        'train_cfg.max_iters=10',
    ]
    settings += ['val_dataloader=None', 'val_cfg=None', 'val_evaluator=None']
    command = [
        sys.executable,
        ROOT / 'tools/train.py',
        DET,
        '--work-dir',
        tmp_path / 'work',
        '--cfg-options',
        *settings,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f'{path}: 3 of ' in done.stdout
    assert 'annotations[0] (id 1) has the bbox [nan, 1, 2, 3]' in done.stdout
    assert 'has the category_id 99, which the file lacks' in done.stdout
    assert 'it covers no pixel. They are left out of training.' in done.stdout
    assert 'faulty annotations (left out of training): 3' in done.stdout
    assert f"No such file or directory: '{gone}'. Another one of the samples is used instead." in done.stdout
