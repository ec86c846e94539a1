# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./dino-4scale_addp-vit-base-p16_8xb2-fp32-12e_coco.py', '../_base_/models/dinov2_vit-base-p14.py']

model = dict(data_preprocessor=dict(pad_size_divisor=56), backbone=_base_.baseline)
