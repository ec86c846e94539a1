# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './mask-rcnn_addp-vit-base-p16_fpn_8xb2-bf16-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(
        arch='large',
        out_indices=(5, 11, 17, 23),
        global_blocks=(5, 11, 17, 23),
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint='hf://Changyao/ADDP/addp-vit-large-16.pth'),
    ),
    neck=[
        dict(type='addp_mm.FourScaleNeck', embed_dims=1024, norm_cfg=_base_.norm_cfg),
        dict(type='FPN', in_channels=[1024, 1024, 1024, 1024], out_channels=256, num_outs=5),
    ],
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
