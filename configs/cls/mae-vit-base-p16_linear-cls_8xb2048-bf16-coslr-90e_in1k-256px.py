# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./addp-vit-base-p16_linear-cls_8xb2048-bf16-coslr-90e_in1k-256px.py', '../_base_/models/mae_vit-base-p16.py']

model = dict(backbone=dict(_base_.baseline, pre_norm=False))
