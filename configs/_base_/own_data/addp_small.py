# Copyright (c) addp_mm contributors. Apache-2.0.
# ADDP with a ViT-S. Learning rate and steps are between the nano recipe and the published one. Not
# measured.
_base_ = ['./addp_nano.py']
own_data = dict(batch_size=256, max_iters=60000, max_passes=1600)

model = dict(
    backbone=dict(arch=dict(embed_dims=384, num_layers=12, num_heads=6), drop_rate=0.1, attn_drop_rate=0.1),
    neck=dict(num_layers=4, num_heads=6, drop_rate=0.1),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end='0.05 * max_iters'),
    dict(type='CosineAnnealingLR', by_epoch=False, begin='0.05 * max_iters', end='max_iters'),
]
custom_hooks = [dict(type='addp_mm.GenerativePretrainHook', preview_interval='0.0833 * max_iters', preview_images=16)]
default_hooks = dict(checkpoint=dict(interval='0.0167 * max_iters'))
