# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './cascade-mask-rcnn_addp-vit-base-p16_vitdet_16xb4-bf16-100e_coco-1024px.py'

model = dict(
    backbone=dict(
        arch='large',
        global_blocks=(5, 11, 17, 23),
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint='hf://Changyao/ADDP/addp-vit-large-16.pth'),
    ),
    neck=dict(in_channels=1024),
)
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
