# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/addp_vit-nano-p8.py',
    '../_base_/datasets/fashion_scenes_pretrain.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

max_iters = 4000
train_dataloader = dict(batch_size=16)
val_dataloader = val_cfg = val_evaluator = None

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=3.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=200, end=max_iters),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)

custom_hooks = [
    dict(
        type='addp_mm.GenerativePretrainHook',
        preview_interval=500,
        preview_images=16,
        sampler=dict(num_steps=12, temperature=2.0, top_p=0.95),
    )
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=500))
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=32)
randomness = dict(seed=0)
