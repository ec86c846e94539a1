# Copyright (c) addp_mm contributors. Apache-2.0.
# The predictor of size base, trained longer: published ADDP of both sizes is taught by MAGE ViT-B.
_base_ = ['./predictor_base.py']
own_data = dict(batch_size=1024, max_iters=300000, max_passes=1600)

max_iters = 300000
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=False, begin=0, end=5000),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=5000, end=max_iters),
]
train_cfg = dict(max_iters=max_iters)
