# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./mask-rcnn_addp-vit-base-p16_vitdet_16xb4-bf16-25e_coco-1024px.py', '../_base_/models/mae_vit-base-p16.py']

model = dict(backbone=_base_.baseline)
