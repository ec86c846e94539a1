# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './upernet_volo-d1_8xb2-bf16-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='d3',
        drop_path_rate=0.5,
        init_cfg=dict(checkpoint='https://github.com/sail-sg/volo/releases/download/volo_1/d3_224_85.4.pth.tar'),
    ),
    neck=dict(embed_dims=[256, 512, 512, 512]),
    decode_head=dict(in_channels=[256, 512, 512, 512]),
    auxiliary_head=dict(in_channels=512),
)
