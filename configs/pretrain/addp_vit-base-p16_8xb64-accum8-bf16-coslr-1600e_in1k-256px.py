# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/addp_vit-base-p16.py',
    '../_base_/datasets/imagenet_256_pretrain.py',
    '../_base_/schedules/pretrain_imagenet.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

optim_wrapper = dict(accumulative_counts=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=40, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=40, end=1600, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=1600)

default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=3))
randomness = dict(seed=0, diff_rank_seed=True)
