# Copyright (c) addp_mm contributors. Apache-2.0.
# Tuning of a nano generator on its own trajectories: runtime, and 200 iterations of AdamW. 1e-3
# spoils the images with preference losses alone (docs/benchmarks/cdpo.md).
_base_ = '../default_runtime.py'
default_scope = 'mmpretrain'

max_iters = 200
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-4, betas=(0.9, 0.95), weight_decay=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=20)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=100), logger=dict(interval=10))
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
