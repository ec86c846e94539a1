# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/upernet_addp-vit-nano-p8.py',
    '../_base_/datasets/fashion_scenes_seg.py',
    '../_base_/schedules/finetune_nano.py',
    '../_base_/seg_runtime.py',
]
max_iters = 400
# Three quarters of all pixels are background. With equal weights, a training as short as this
# learns only the background.
class_weight = [0.1] + [1.0] * 10
model = dict(
    decode_head=dict(loss_decode=dict(class_weight=class_weight)),
    auxiliary_head=dict(loss_decode=dict(class_weight=class_weight)),
)
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
auto_scale_lr = dict(base_batch_size=16)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=20, end=max_iters),
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(by_epoch=False, interval=max_iters, max_keep_ckpts=1))
randomness = dict(seed=0)
