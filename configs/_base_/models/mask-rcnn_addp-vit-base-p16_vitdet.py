# Copyright (c) addp_mm contributors. Apache-2.0.
# ViTDet's Mask R-CNN: mmdet's with two convolutions in the RPN, four convolutions and one linear
# layer in the box head, and LayerNorm over channels. Every image is padded to 1024 x 1024, in
# training and in testing.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', './vitdet_addp-vit-base-p16.py']

model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),
    backbone=dict(_delete_=True, **_base_.backbone),
    neck=dict(_delete_=True, **_base_.neck),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=_base_.norm_cfg),
        mask_head=dict(norm_cfg=_base_.norm_cfg),
    ),
)
