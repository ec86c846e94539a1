# Copyright (c) addp_mm contributors. Apache-2.0.
# Crops of 37 x 37 patches.
_base_ = [
    '../_base_/models/upernet_addp-vit-base-p16.py',
    '../_base_/models/dinov2_vit-base-p14.py',
    '../_base_/datasets/ade20k_518x518.py',
    '../_base_/schedules/seg_160k.py',
]

model = dict(
    data_preprocessor=dict(size=(518, 518)),
    backbone=dict(_base_.baseline, img_size=518),
    test_cfg=dict(crop_size=(518, 518), stride=(345, 345)),
)
