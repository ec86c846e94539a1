# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/linear-probe_addp-vit-base-p16.py',
    '../_base_/datasets/imagenet_256_probe.py',
    '../_base_/schedules/linear-probe_imagenet_90e.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

train_dataloader = dict(batch_size=2048)
default_hooks = dict(checkpoint=dict(save_best='accuracy/top1'))
randomness = dict(seed=0, diff_rank_seed=True)
