# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./upernet_addp-vit-base-p16_8xb2-bf16-160k_ade20k-512x512.py', '../_base_/models/deit3_vit-base-p16.py']

model = dict(backbone=_base_.baseline)
