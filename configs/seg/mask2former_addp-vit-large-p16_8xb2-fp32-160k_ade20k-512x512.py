# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './mask2former_addp-vit-base-p16_8xb2-fp32-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='large',
        out_indices=(7, 11, 15, 23),
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='hf://Changyao/ADDP/addp-vit-large-16.pth'),
    ),
    neck=dict(embed_dims=1024),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024]),
)
optim_wrapper = dict(optimizer=dict(lr=4e-5 * 16 / 16), paramwise_cfg=dict(layer_decay_rate=0.9))
