# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './dinov2-vit-base-p14.py'

model = dict(
    backbone=dict(
        arch='large',
        frozen_stages=24,
        init_cfg=dict(checkpoint='https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth'),
    ),
    decode_head=dict(in_channels=[1024]),
)
