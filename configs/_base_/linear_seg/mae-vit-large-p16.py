# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './vit-base-p16.py'

model = dict(
    backbone=dict(
        arch='large',
        frozen_stages=24,
        init_cfg=dict(checkpoint='https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_large.pth'),
    ),
    decode_head=dict(in_channels=[1024]),
)
