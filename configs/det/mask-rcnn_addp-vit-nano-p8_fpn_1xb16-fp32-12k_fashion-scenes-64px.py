# Copyright (c) addp_mm contributors. Apache-2.0.
# The detector that ships with the package: 9.6 epochs of FashionScenes. Its validation only shows
# the progress; the last checkpoint is the one that ships.
_base_ = [
    '../_base_/models/mask-rcnn_addp-vit-nano-p8.py',
    '../_base_/datasets/fashion_scenes_det.py',
    '../_base_/schedules/finetune_nano.py',
    '../_base_/det_runtime.py',
]
max_iters = 12000
train_cfg = dict(max_iters=max_iters, val_interval=2000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=200, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=500))
randomness = dict(seed=0)
