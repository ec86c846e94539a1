# Copyright (c) addp_mm contributors. Apache-2.0.
# mmdet's Mask R-CNN and FPN with VOLO d1. `with_cp` computes the blocks again in the backward pass.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', './volo-d1_maps.py']

model = dict(
    backbone=dict(_delete_=True, with_cp=True, **_base_.backbone),
    neck=[_base_.neck, dict(type='FPN', in_channels=[192, 384, 384, 384], out_channels=256, num_outs=5)],
)
