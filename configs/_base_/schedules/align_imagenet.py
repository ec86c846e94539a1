# Copyright (c) addp_mm contributors. Apache-2.0.
# Tuning of a ViT-B generator on its own trajectories: runtime, and 1000 iterations of AdamW in
# bfloat16.
_base_ = '../default_runtime.py'
default_scope = 'mmpretrain'

max_iters = 1000
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=dict(enabled=False),
    optimizer=dict(type='AdamW', lr=2e-4, betas=(0.9, 0.95), weight_decay=0.0),
    clip_grad=dict(max_norm=1.0),
    accumulative_counts=4,
)
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=100)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=200), logger=dict(interval=10))
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
