# Copyright (c) addp_mm contributors. Apache-2.0.
# ADDP ViT-B (arXiv 2306.05423) with a quarter of its batch, a learning rate scaled accordingly, and
# fewer steps. Not measured.
_base_ = ['./addp_nano.py']
own_data = dict(batch_size=1024, max_iters=200000, max_passes=1600)

model = dict(
    backbone=dict(arch=dict(embed_dims=768, num_layers=12, num_heads=12), drop_rate=0.1, attn_drop_rate=0.1),
    neck=dict(num_layers=8, num_heads=16, drop_rate=0.1),
    head=dict(loss=dict(label_smoothing=0.1)),
)
optim_wrapper = dict(optimizer=dict(lr=1e-4 * 1024 / 256))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=False, begin=0, end='0.025 * max_iters'),
    dict(type='CosineAnnealingLR', by_epoch=False, begin='0.025 * max_iters', end='max_iters'),
]
custom_hooks = [dict(type='addp_mm.GenerativePretrainHook', preview_interval='0.025 * max_iters', preview_images=16)]
default_hooks = dict(checkpoint=dict(interval='0.0125 * max_iters'))
