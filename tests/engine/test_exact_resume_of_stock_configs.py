# Copyright (c) addp_mm contributors. Apache-2.0.
"""A stock config of each package resumes exactly, without a change: tools/train.py, twice."""

import pytest
from mmengine.runner.checkpoint import CheckpointLoader

from addp_mm.checkpoints.training_state import differences

pytestmark = pytest.mark.slow
COMMON = """
val_dataloader = val_cfg = val_evaluator = test_dataloader = test_cfg = test_evaluator = None
default_hooks = dict(checkpoint=dict(_delete_=True, type='CheckpointHook', by_epoch=False, interval=2),
                     logger=dict(interval=1))
param_scheduler = []
randomness = dict(seed=7)
"""
# RepeatAugSampler, mixup, cutmix, RandAugment, erasing, moving averages
MMPRETRAIN = """
_base_ = 'mmpretrain::deit/deit-tiny_4xb256_in1k.py'
train_dataloader = dict(
    batch_size=4, num_workers=2, persistent_workers=True, sampler=dict(_delete_=True, type='RepeatAugSampler'),
    dataset=dict(_delete_=True, type='CustomDataset', data_root={root!r}, data_prefix='objects/train',
                 pipeline=_base_.train_pipeline))
train_cfg = dict(by_epoch=True, max_epochs=2)
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
"""
# batches by aspect ratio, images of several sizes, batch norm
MMDET = """
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
model = dict(backbone=dict(init_cfg=None), bbox_head=dict(num_classes=10))
pipeline = _base_.train_pipeline
pipeline[2] = dict(type='RandomResize', scale=(64, 64), ratio_range=(0.5, 2.0), keep_ratio=True)
train_dataloader = dict(num_workers=1, dataset=dict(
    data_root={root!r}, ann_file='annotations/instances_train.json', data_prefix=dict(img='scenes/train/'),
    metainfo=dict(classes={classes!r}), filter_cfg=None, pipeline=pipeline))
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=1)
"""
# training by iterations with an infinite sampler
MMSEG = """
_base_ = 'mmseg::fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py'
model = dict(data_preprocessor=dict(size=(64, 64)))
norm_cfg = dict(type='BN')
pipeline = _base_.train_pipeline
pipeline[2].scale, pipeline[3].crop_size = (128, 64), (64, 64)
train_dataloader = dict(batch_size=2, num_workers=2, dataset=dict(
    type='BaseSegDataset', data_root={root!r}, img_suffix='.png', seg_map_suffix='.png',
    data_prefix=dict(img_path='scenes/train', seg_map_path='labels/train'), pipeline=pipeline,
    metainfo=dict(classes=[str(number) for number in range(19)])))
train_cfg = dict(max_iters=6, val_interval=100)
"""


@pytest.mark.parametrize('config, last', [(MMPRETRAIN, 10), (MMDET, 6), (MMSEG, 6)], ids=['cls', 'det', 'seg'])
def test_a_stock_config_resumes_exactly(tmp_path, written_set, run_tool, config, last):
    classes = sorted(path.name for path in (written_set / 'objects/train').iterdir())
    file = tmp_path / 'stock.py'
    file.write_text(config.format(root=f'{written_set}/', classes=classes) + COMMON)
    stop = last // 2 // 2 * 2  # within an epoch
    for name, options in (('whole', []), ('resumed', ['--resume', tmp_path / f'whole/iter_{stop}.pth'])):
        finished = run_tool('train.py', file, '--work-dir', tmp_path / name, *options)
        assert finished.status == 0, finished.output[-3000:]
    start, whole, resumed = (
        CheckpointLoader.load_checkpoint(str(tmp_path / name), 'cpu')
        for name in (f'whole/iter_{stop}.pth', f'whole/iter_{last}.pth', f'resumed/iter_{last}.pth')
    )
    assert differences(whole, resumed) == []
    assert any(line.startswith('state_dict.') for line in differences(whole, start))
