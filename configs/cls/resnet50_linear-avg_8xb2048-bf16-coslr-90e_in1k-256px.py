# Copyright (c) addp_mm contributors. Apache-2.0.
# ResNet-50, supervised on ImageNet-1k. Its averaged features follow a batch norm, so the head needs
# no norm.
_base_ = './addp-vit-base-p16_linear-avg_8xb2048-bf16-coslr-90e_in1k-256px.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        out_indices=(3,),
        frozen_stages=4,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
    head=dict(in_channels=2048),
)
