# Copyright (c) addp_mm contributors. Apache-2.0.
# Crops and windows of 37 x 37 patches. Mean and standard deviation are CLIP's.
_base_ = './timm.py'

model = dict(
    data_preprocessor=dict(size=(518, 518), mean=[122.771, 116.746, 104.094], std=[68.501, 66.632, 70.323]),
    backbone=dict(model='eva02_base_patch14_224.mim_in22k', frozen_stages=12),
    test_cfg=dict(crop_size=(518, 518), stride=(345, 345)),
)
