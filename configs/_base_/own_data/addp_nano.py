# Copyright (c) addp_mm contributors. Apache-2.0.
# ADDP at nano scale: the recipe of the shipped weights with fewer steps. The tool sets the
# tokenizer and the predictor to those of the earlier stages.
_base_ = ['./runtime.py']
own_data = dict(batch_size=32, max_iters=2000, max_passes=1600)

model = dict(
    type='addp_mm.ADDP',
    backbone=dict(
        type='addp_mm.ADDPViT', arch=dict(embed_dims=128, num_layers=6, num_heads=4), out_type='raw', pre_norm=True
    ),
    neck=dict(type='addp_mm.TokenDecoder', num_layers=2, num_heads=4, drop_rate=0.0),
    head=dict(type='addp_mm.TokenHead', loss=dict(type='addp_mm.SoftTargetCrossEntropy')),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=3.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end='0.1 * max_iters'),
    dict(type='CosineAnnealingLR', by_epoch=False, begin='0.1 * max_iters', end='max_iters'),
]
custom_hooks = [dict(type='addp_mm.GenerativePretrainHook', preview_interval='0.25 * max_iters', preview_images=16)]
