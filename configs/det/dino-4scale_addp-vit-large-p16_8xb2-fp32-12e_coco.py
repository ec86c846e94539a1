# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './dino-4scale_addp-vit-base-p16_8xb2-fp32-12e_coco.py'

model = dict(
    backbone=dict(
        arch='large',
        global_blocks=(5, 11, 17, 23),
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint='hf://Changyao/ADDP/addp-vit-large-16.pth'),
    ),
    neck=dict(in_channels=1024),
)
