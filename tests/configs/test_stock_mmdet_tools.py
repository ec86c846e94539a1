# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmdet's Mask R-CNN with our backbone, run by the scripts that mmdet ships."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/det/mask-rcnn_addp-vit-nano-p8_coco-style_fashion-scenes.py'


# mmdet's test.py imports mmdet's operators before it reads the config and its custom_imports.
AFTER_IMPORT = ['-m', 'addp_mm']


def stock_file(name: str) -> Path:
    return Path(importlib.util.find_spec('mmdet').origin).parent / '.mim' / name


def run(script: list, *args) -> str:
    """Run a script on the config outside the repository; return its output."""
    *args, options, cwd = args
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, *script, str(CONFIG), *args, '--cfg-options', *options]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-4000:]
    return output


def changed(new, old, path: str = '') -> set:
    """Dotted names at which two configs differ."""
    if isinstance(new, list) and isinstance(old, list):
        new, old = dict(enumerate(new)), dict(enumerate(old))
    if isinstance(new, dict) and isinstance(old, dict):
        return set().union(*(changed(new.get(k), old.get(k), f'{path}.{k}'.lstrip('.')) for k in {*new, *old}))
    return set() if new == old or path.endswith('._scope_') else {path}


def test_only_backbone_neck_and_data_are_replaced():
    stock = stock_file('configs/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    names = changed(Config.fromfile(CONFIG).to_dict(), Config.fromfile(stock).to_dict())
    data = (
        'train_dataloader.dataset.',
        'val_dataloader.dataset.',
        'test_dataloader.dataset.',
        'train_pipeline',
        'test_pipeline',
        'data_root',
        'metainfo',
        'val_evaluator.ann_file',
        'test_evaluator.ann_file',
    )
    changed_by_us = {'model.roi_head.bbox_head.num_classes', 'model.roi_head.mask_head.num_classes'}
    changed_by_us.add('default_hooks.random_state')
    rest = {n for n in names if not n.startswith(('model.backbone.', 'model.neck.', 'custom_imports', *data))}
    assert rest == changed_by_us


@pytest.mark.slow
def test_trains_and_tests_with_mmdets_own_scripts(small_scenes, tmp_path):
    import torch
    from safetensors.torch import save_file

    from addp_mm.models.backbones import ADDPViT

    torch.manual_seed(0)
    weights = ADDPViT('nano', img_size=64, patch_size=8, pre_norm=True).state_dict()
    save_file({f'backbone.{name}': value for name, value in weights.items()}, tmp_path / 'weights.safetensors')
    annotations = small_scenes / 'annotations/instances_val.json'
    options = [f'{loader}_dataloader.dataset.data_root={small_scenes}/' for loader in ('train', 'val', 'test')]
    options += [f'{name}_evaluator.ann_file={annotations}' for name in ('val', 'test')]
    options += [
        f'{loader}_dataloader.{key}'
        for loader in ('train', 'val', 'test')
        for key in ('num_workers=0', 'persistent_workers=False')
    ]
    options += ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=4', 'default_hooks.logger.interval=1']
    checkpoint = f'model.backbone.init_cfg.checkpoint={tmp_path}/weights.safetensors'
    options.append(checkpoint)
    printed = run([str(stock_file('tools/train.py'))], '--work-dir', str(tmp_path / 'train'), options, tmp_path)
    assert 'loss_mask' in printed
    assert 'weights.safetensors' in printed
    assert 'coco/bbox_mAP' in printed
    checkpoint = str(tmp_path / 'train/epoch_1.pth')
    printed = run(
        [*AFTER_IMPORT, str(stock_file('tools/test.py'))],
        checkpoint,
        '--work-dir',
        str(tmp_path / 'test'),
        options,
        tmp_path,
    )
    assert 'coco/bbox_mAP' in printed
    assert 'coco/segm_mAP' in printed
