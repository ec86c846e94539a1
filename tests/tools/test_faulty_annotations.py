# Copyright (c) addp_mm contributors. Apache-2.0.
"""Runs on annotations and images that people really have."""

import json
import shutil

import pytest
from helpers.checked_data import change_json
from helpers.run_tools import ROOT
from PIL import Image

DET = ROOT / 'configs/det/mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px.py'
SEG = ROOT / 'configs/seg/upernet_addp-vit-nano-p8_ft_1xb16-fp32-400i_fashion-scenes-64px.py'


def train(run_tool, config, root, work_dir, *others):
    """Train one iteration and validate."""
    settings = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1', *others]
    for loader in ('train_dataloader', 'val_dataloader'):
        settings += [f'{loader}.dataset.data_root={root}', f'{loader}.num_workers=0', f'{loader}.batch_size=2']
        settings += [f'{loader}.persistent_workers=False']
    finished = run_tool('train.py', config, '--work-dir', work_dir, '--cfg-options', *settings)
    return finished.status, finished.output


@pytest.fixture
def scenes(small_scenes, tmp_path):
    return shutil.copytree(small_scenes, tmp_path / 'scenes')


@pytest.mark.slow
def test_a_validation_on_repaired_annotations_ends_with_scores(scenes, tmp_path, run_tool):
    path = scenes / 'annotations/instances_val.json'

    def spoil(content):
        for number, annotation in enumerate(content['annotations']):
            del annotation['iscrowd']
            annotation['id'] = number
        content['annotations'][0]['segmentation'] = [[10, 10, 20, 20]]

    change_json(path, spoil)
    work_dir = tmp_path / 'work'
    status, output = train(run_tool, DET, scenes, work_dir, f'val_evaluator.ann_file={path}')
    assert status == 0, output
    copy = work_dir / 'annotations/val_instances_val.json'
    count = len(json.loads(copy.read_text())['annotations'])
    for words in (
        f'{path}: repaired:',
        'annotation ids that are 0 or strings (all ids are numbered from 1): 1',
        f'annotations without iscrowd (taken as 0): {count}',
        'objects without a mask, such as a polygon of two points (the box counts, the mask is not scored): 1',
        f'Training and test use a repaired copy, annotations/{copy.name} in the work dir.',
        'coco/segm_mAP:',
    ):
        assert words in output, output


@pytest.mark.slow
def test_scenes_of_two_sizes_are_named_before_training(scenes, tmp_path, run_tool):
    for path in sorted([*scenes.glob('scenes/train/*1.png'), *scenes.glob('labels/train/*1.png')]):
        image = Image.open(path)
        image.resize((96, 64), Image.Resampling.NEAREST).save(path)
    status, output = train(run_tool, SEG, scenes, tmp_path / 'work')
    assert status == 1, output
    last = output.strip().splitlines()[-1]
    assert last.startswith('error: train_dataloader would fail: images of different sizes'), output
    assert f'{scenes}/scenes/train/000001.png (64 x 96)' in last
