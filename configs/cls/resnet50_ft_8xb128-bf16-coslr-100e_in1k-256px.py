# Copyright (c) addp_mm contributors. Apache-2.0.
# ResNet-50, supervised on ImageNet-1k. It has no stochastic depth.
_base_ = './addp-vit-base-p16_ft_8xb128-bf16-coslr-100e_in1k-256px.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        out_indices=(3,),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=2048),
)
