# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/mask-rcnn_addp-vit-base-p16_fpn.py',
    '../_base_/datasets/coco_ms-crop.py',
    '../_base_/schedules/coco_vit_3x.py',
]
