# Copyright (c) addp_mm contributors. Apache-2.0.
# mmdet's RetinaNet on strides 8 to 128.
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', './vitdet_addp-vit-base-p16.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.backbone), neck=dict(_delete_=True, scales=(2, 1, 0.5), **_base_.neck)
)
