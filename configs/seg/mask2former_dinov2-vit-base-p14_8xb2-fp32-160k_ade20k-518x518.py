# Copyright (c) addp_mm contributors. Apache-2.0.
# Crops of 37 x 37 patches.
_base_ = ['./mask2former_addp-vit-base-p16_8xb2-fp32-160k_ade20k-512x512.py', '../_base_/models/dinov2_vit-base-p14.py']

model = dict(
    data_preprocessor=dict(size=(518, 518), test_cfg=dict(size_divisor=14)),
    backbone=dict(_base_.baseline, img_size=518),
)
train_sizes = dict(scales=[int(518 * tenths / 10) for tenths in range(5, 21)], max_size=2072, crop_size=(518, 518))
train_pipeline = [
    dict(step, **{key: size for key, size in train_sizes.items() if key in step}) for step in _base_.train_pipeline
]
del train_sizes
test_pipeline = [
    dict(step, **{key: size for key, size in dict(scale=(2072, 518)).items() if key in step})
    for step in _base_.test_pipeline
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
