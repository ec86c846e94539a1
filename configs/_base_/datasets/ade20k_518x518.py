# Copyright (c) addp_mm contributors. Apache-2.0.
# ADE20K in crops of 518 px, 37 patches of 14 px.
_base_ = './ade20k_512x512.py'

crop_size = (518, 518)
scale = (2072, 518)

train_pipeline, test_pipeline, tta_pipeline = _base_.train_pipeline, _base_.test_pipeline, _base_.tta_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = scale
train_pipeline[3].crop_size = crop_size
tta_pipeline[1].transforms[0] = [
    dict(type='Resize', scale=(int(2072 * ratio), int(518 * ratio)), keep_ratio=True)
    for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
