# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./upernet_addp-vit-base-p16_8xb1-bf16-80k_cityscapes-768x768.py', '../_base_/models/mae_vit-base-p16.py']

model = dict(backbone=_base_.baseline)
