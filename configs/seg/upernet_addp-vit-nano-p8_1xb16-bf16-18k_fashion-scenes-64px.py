# Copyright (c) addp_mm contributors. Apache-2.0.
# The segmentor that ships with the package: 14.4 epochs of FashionScenes. All classes have the same
# weight. Its validation only shows the progress; the last checkpoint is the one that ships.
_base_ = [
    '../_base_/models/upernet_addp-vit-nano-p8.py',
    '../_base_/datasets/fashion_scenes_seg.py',
    '../_base_/schedules/finetune_nano.py',
    '../_base_/seg_runtime.py',
]
max_iters = 18000
optim_wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(enabled=False))
train_cfg = dict(max_iters=max_iters, val_interval=3000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=200, end=max_iters),
]
# Images of any size, for example uploads to `addp app`, become as large as the scenes.
test_pipeline = [
    dict(type='addp_mm.LoadImage'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1000))
randomness = dict(seed=0)
