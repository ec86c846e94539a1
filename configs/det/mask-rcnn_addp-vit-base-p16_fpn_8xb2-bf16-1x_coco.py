# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/mask-rcnn_addp-vit-base-p16_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_vit_1x.py',
]
