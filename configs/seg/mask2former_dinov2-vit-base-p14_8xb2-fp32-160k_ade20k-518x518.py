# Copyright (c) addp_mm contributors. Apache-2.0.
# Crops of 37 patches a side.
_base_ = ['./mask2former_addp-vit-base-p16_8xb2-fp32-160k_ade20k-512x512.py', '../_base_/models/dinov2_vit-base-p14.py']

model = dict(
    data_preprocessor=dict(size=(518, 518), test_cfg=dict(size_divisor=14)),
    backbone=dict(_base_.baseline, img_size=518),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomChoiceResize',
        scales=[int(518 * tenths / 10) for tenths in range(5, 21)],
        resize_type='ResizeShortestEdge',
        max_size=2072,
    ),
    dict(type='RandomCrop', crop_size=(518, 518), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2072, 518), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
