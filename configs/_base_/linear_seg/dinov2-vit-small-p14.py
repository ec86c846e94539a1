# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './dinov2-vit-base-p14.py'

model = dict(
    backbone=dict(
        arch='small',
        init_cfg=dict(checkpoint='https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth'),
    ),
    decode_head=dict(in_channels=[384]),
)
