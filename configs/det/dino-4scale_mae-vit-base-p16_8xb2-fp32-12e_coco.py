# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./dino-4scale_addp-vit-base-p16_8xb2-fp32-12e_coco.py', '../_base_/models/mae_vit-base-p16.py']

model = dict(backbone=_base_.baseline)
