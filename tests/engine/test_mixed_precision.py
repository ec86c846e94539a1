# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/train.py --amp on the CPU: every kind of recipe trains and predicts in half precision."""

import json

import pytest
from helpers.recipes import CONFIGS

pytestmark = pytest.mark.slow
RECIPES = dict(
    cls='cls/addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px.py',
    det='det/mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px.py',
    seg='seg/upernet_addp-vit-nano-p8_ft_1xb16-fp32-400i_fashion-scenes-64px.py',
    pretrain='pretrain/addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px.py',
)
# in half precision the detector has other proposals
TOLERANCES = dict(cls=0.03, det=0.06, seg=0.03, pretrain=0.03)
VALIDATION = dict(cls='accuracy/top1', det='coco/bbox_mAP', seg='mIoU')


def losses_and_metrics(run_tool, task, work_dir, root, *amp):
    """Losses of two iterations of four images, and the metrics of a validation in bfloat16."""
    loaders = ('train', 'val') if task in VALIDATION else ('train',)
    options = ['train_cfg.max_iters=2', 'default_hooks.logger.interval=1', 'train_dataloader.batch_size=4']
    for loader in loaders:
        options += [f'{loader}_dataloader.{option}' for option in ('num_workers=0', 'persistent_workers=False')]
        options.append(f'{loader}_dataloader.dataset.data_root={root}/')
    if task in VALIDATION:
        options += ['train_cfg.val_interval=2', 'val_cfg.fp16=True']
    if task == 'det':
        options.append(f'val_evaluator.ann_file={root}/annotations/instances_val.json')
    arguments = ['--work-dir', work_dir, *amp, '--seed', 3, '--cfg-options', *options]
    finished = run_tool('train.py', CONFIGS / RECIPES[task], *arguments)
    assert finished.status == 0, finished.output[-3000:]
    (scalars,) = work_dir.rglob('vis_data/scalars.json')
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    return [row['loss'] for row in rows if 'loss' in row], rows[-1]


@pytest.mark.parametrize('task', RECIPES)
def test_half_precision_stays_near_float32(task, tmp_path, written_set, run_tool):
    expected, _ = losses_and_metrics(run_tool, task, tmp_path / 'float32', written_set)
    for dtype in ('bfloat16', 'float16'):
        losses, metrics = losses_and_metrics(run_tool, task, tmp_path / dtype, written_set, '--amp', dtype)
        assert losses == pytest.approx(expected, rel=TOLERANCES[task]), dtype
        assert losses != expected
        if task in VALIDATION:
            assert 0 <= metrics[VALIDATION[task]] <= 100
