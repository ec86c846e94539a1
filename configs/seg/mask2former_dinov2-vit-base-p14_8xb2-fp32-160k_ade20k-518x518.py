# Copyright (c) addp_mm contributors. Apache-2.0.
# Crops of 37 x 37 patches.
_base_ = ['./mask2former_addp-vit-base-p16_8xb2-fp32-160k_ade20k-512x512.py', '../_base_/models/dinov2_vit-base-p14.py']

model = dict(
    data_preprocessor=dict(size=(518, 518), test_cfg=dict(size_divisor=14)),
    backbone=dict(_base_.baseline, img_size=518),
)
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].update(scales=[int(518 * tenths / 10) for tenths in range(5, 21)], max_size=2072)
train_pipeline[3].crop_size = (518, 518)
test_pipeline[1].scale = (2072, 518)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
