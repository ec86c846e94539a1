# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/retinanet_addp-vit-base-p16.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/schedules/coco_vit_1x.py',
]
