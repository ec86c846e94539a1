# Copyright (c) addp_mm contributors. Apache-2.0.
# COCO with large-scale jitter in crops of 896 px, 64 patches of 14 px. Every step of the 1024 px
# pipelines that has a size gets the new one.
_base_ = './coco_lsj-1024px.py'

image_size = (896, 896)
train_pipeline = [
    dict(step, **{key: size for key, size in dict(scale=image_size, crop_size=image_size).items() if key in step})
    for step in _base_.train_pipeline
]
test_pipeline = [
    dict(step, **{key: size for key, size in dict(scale=image_size).items() if key in step})
    for step in _base_.test_pipeline
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
