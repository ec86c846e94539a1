# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './upernet_volo-d1_8xb2-bf16-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='d5',
        drop_path_rate=0.75,
        init_cfg=dict(checkpoint='https://github.com/sail-sg/volo/releases/download/volo_1/d5_224_86.10.pth.tar'),
    ),
    neck=dict(embed_dims=[384, 768, 768, 768]),
    decode_head=dict(in_channels=[384, 768, 768, 768]),
    auxiliary_head=dict(in_channels=768),
)
