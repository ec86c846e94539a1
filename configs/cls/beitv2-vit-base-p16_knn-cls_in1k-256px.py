# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./addp-vit-base-p16_knn-cls_in1k-256px.py', '../_base_/models/beitv2_vit-base-p16.py']

model = dict(backbone=dict(_base_.baseline, pre_norm=False))
