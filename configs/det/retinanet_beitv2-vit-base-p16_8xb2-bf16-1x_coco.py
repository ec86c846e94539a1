# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./retinanet_addp-vit-base-p16_8xb2-bf16-1x_coco.py', '../_base_/models/beitv2_vit-base-p16.py']

model = dict(backbone=_base_.baseline)
