# Copyright (c) addp_mm contributors. Apache-2.0.
# ADDP at nano scale, by the recipe of the shipped weights in fewer steps. Tokenizer and predictor
# are those of the stages before.
_base_ = ['./runtime.py']
own_data = dict(batch_size=32, max_iters=2000, max_passes=1600)

max_iters = 2000
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
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=200, end=max_iters),
]
custom_hooks = [dict(type='addp_mm.GenerativePretrainHook', preview_interval=500, preview_images=16)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)
