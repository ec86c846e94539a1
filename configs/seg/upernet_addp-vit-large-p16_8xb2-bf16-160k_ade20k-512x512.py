# Copyright (c) addp_mm contributors. Apache-2.0.
# ViT-L with the learning rate, layer decay and drop path of BEiT v2's ViT-L, which has the same
# crop, batch and schedule length.
_base_ = './upernet_addp-vit-base-p16_8xb2-bf16-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='large',
        out_indices=(7, 11, 15, 23),
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='hf://Changyao/ADDP/addp-vit-large-16.pth'),
    ),
    neck=dict(embed_dims=1024),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=1024),
    auxiliary_head=dict(in_channels=1024),
)
optim_wrapper = dict(optimizer=dict(lr=4e-5 * 16 / 16), paramwise_cfg=dict(layer_decay_rate=0.9))
