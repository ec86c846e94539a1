# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./mask2former_addp-vit-base-p16_8xb2-fp32-160k_ade20k-512x512.py', '../_base_/models/deit3_vit-base-p16.py']

model = dict(backbone=_base_.baseline)
