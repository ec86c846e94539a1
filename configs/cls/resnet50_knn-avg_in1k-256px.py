# Copyright (c) addp_mm contributors. Apache-2.0.
# ResNet-50, supervised on ImageNet-1k.
_base_ = './addp-vit-base-p16_knn-avg_in1k-256px.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        out_indices=(3,),
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(type='GlobalAveragePooling'),
)
