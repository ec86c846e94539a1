# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./addp-vit-base-p16_knn-cls_in1k-256px.py', '../_base_/models/augreg_vit-base-p16.py']

model = dict(backbone=dict(_base_.baseline, pre_norm=False))
data_preprocessor = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])
