# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './retinanet_addp-vit-base-p16_8xb2-bf16-1x_coco.py'

model = dict(
    backbone=dict(
        arch='large',
        global_blocks=(5, 11, 17, 23),
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint='hf://Changyao/ADDP/addp-vit-large-16.pth'),
    ),
    neck=dict(in_channels=1024),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
