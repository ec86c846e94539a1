# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/addp_vit-nano-p8.py',
    '../_base_/datasets/fashion_scenes_pretrain.py',
    '../_base_/schedules/pretrain_nano.py',
]

max_iters = 4000
train_dataloader = dict(batch_size=16)
val_dataloader = val_cfg = val_evaluator = None

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=200, end=max_iters),
]
train_cfg = dict(max_iters=max_iters)

custom_hooks = [
    dict(
        type='addp_mm.GenerativePretrainHook',
        preview_interval=500,
        preview_images=16,
        sampler=dict(num_steps=8, ratio='power:3.1', order='halton', top_p=0.69),
    )
]
