# Copyright (c) addp_mm contributors. Apache-2.0.
# ViTDet's Cascade Mask R-CNN on mmdet's cascade: three box heads of four convolutions and one
# linear layer.
_base_ = ['mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py', './vitdet_addp-vit-base-p16.py']

box_head = dict(
    type='Shared4Conv1FCBBoxHead',
    in_channels=256,
    conv_out_channels=256,
    fc_out_channels=1024,
    roi_feat_size=7,
    num_classes=80,
    reg_class_agnostic=True,
    norm_cfg=_base_.norm_cfg,
    loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0),
)
bbox_coder = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0])
model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),
    backbone=dict(_delete_=True, **_base_.backbone),
    neck=dict(_delete_=True, **_base_.neck),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=[
            dict(bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2], **bbox_coder), **box_head),
            dict(bbox_coder=dict(target_stds=[0.05, 0.05, 0.1, 0.1], **bbox_coder), **box_head),
            dict(bbox_coder=dict(target_stds=[0.033, 0.033, 0.067, 0.067], **bbox_coder), **box_head),
        ],
        mask_head=dict(norm_cfg=_base_.norm_cfg),
    ),
)
