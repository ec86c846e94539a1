# Copyright (c) addp_mm contributors. Apache-2.0.
# ADDP ViT-L (arXiv 2306.05423) with its rate at a quarter of its batch, and fewer steps.
_base_ = ['./addp_base.py']
own_data = dict(batch_size=1024, max_iters=300000, max_passes=1600)

max_iters = 300000
model = dict(backbone=dict(arch=dict(embed_dims=1024, num_layers=24, num_heads=16)))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=False, begin=0, end=5000),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=5000, end=max_iters),
]
train_cfg = dict(max_iters=max_iters)
