# Copyright (c) addp_mm contributors. Apache-2.0.
# 80 000 iterations at batch 8, otherwise as seg_160k.
_base_ = './seg_160k.py'

max_iters = 80000
optim_wrapper = dict(optimizer=dict(lr=1e-4 * 8 / 16))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
auto_scale_lr = dict(base_batch_size=8)
