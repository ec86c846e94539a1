# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./mask-rcnn_addp-vit-base-p16_fpn_8xb2-bf16-ms-crop-3x_coco.py', '../_base_/models/deit3_vit-base-p16.py']

model = dict(backbone=_base_.baseline)
