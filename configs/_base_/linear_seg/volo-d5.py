# Copyright (c) addp_mm contributors. Apache-2.0.
# Maps of stride 8, 16, 16 and 16.
_base_ = './vit-base-p16.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='addp_mm.VOLO',
        arch='d5',
        frozen_stages=4,
        init_cfg=dict(
            type='addp_mm.Pretrained',
            checkpoint='https://github.com/sail-sg/volo/releases/download/volo_1/d5_224_86.10.pth.tar',
        ),
    ),
    decode_head=dict(in_channels=[384, 768, 768, 768]),
)
