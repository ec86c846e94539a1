# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/linear-cls_addp-vit-nano-p8.py',
    '../_base_/datasets/fashion_scenes_cls.py',
    '../_base_/schedules/finetune_nano.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

max_iters = 300
train_dataloader = dict(sampler=dict(type='addp_mm.ResumableInfiniteSampler', shuffle=True), batch_size=32)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=20, end=max_iters),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(by_epoch=False, interval=max_iters, max_keep_ckpts=1))
randomness = dict(seed=0)
