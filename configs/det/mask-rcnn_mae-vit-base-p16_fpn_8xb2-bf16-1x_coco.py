# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./mask-rcnn_addp-vit-base-p16_fpn_8xb2-bf16-1x_coco.py', '../_base_/models/mae_vit-base-p16.py']

model = dict(backbone=_base_.baseline)
