# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './upernet_volo-d1_8xb1-bf16-80k_cityscapes-1024x1024.py'

model = dict(
    backbone=dict(
        arch='d4',
        drop_path_rate=0.5,
        init_cfg=dict(checkpoint='https://github.com/sail-sg/volo/releases/download/volo_1/d4_224_85.7.pth.tar'),
    ),
    neck=dict(embed_dims=[384, 768, 768, 768]),
    decode_head=dict(in_channels=[384, 768, 768, 768]),
    auxiliary_head=dict(in_channels=768),
)
