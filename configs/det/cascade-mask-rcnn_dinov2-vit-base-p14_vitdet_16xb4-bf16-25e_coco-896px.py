# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_dinov2-vit-base-p14_vitdet.py',
    '../_base_/datasets/coco_lsj-896px.py',
    '../_base_/schedules/vitdet_25e.py',
]
