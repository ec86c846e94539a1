# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/mask-rcnn_addp-vit-nano-p8.py',
    '../_base_/datasets/fashion_scenes_det.py',
    '../_base_/schedules/finetune_nano.py',
    '../_base_/det_runtime.py',
]
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(by_epoch=False, interval=_base_.max_iters, max_keep_ckpts=1)
)
randomness = dict(seed=0)
