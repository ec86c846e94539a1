# Copyright (c) addp_mm contributors. Apache-2.0.
# A quarter of ViTDet's schedule and of its steps.
_base_ = './vitdet_100e.py'

max_iters = 46094
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=max_iters, milestones=[40972, 44386], gamma=0.1),
]
train_cfg = dict(max_iters=max_iters, val_interval=23047)
