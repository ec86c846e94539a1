# Copyright (c) addp_mm contributors. Apache-2.0.
# Crops and windows of 37 x 37 patches.
_base_ = ['./vit-base-p16.py', '../models/dinov2_vit-base-p14.py']

model = dict(
    data_preprocessor=dict(size=(518, 518)),
    backbone=dict(_base_.baseline, img_size=518),
    test_cfg=dict(crop_size=(518, 518), stride=(345, 345)),
)
