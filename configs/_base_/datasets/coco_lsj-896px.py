# Copyright (c) addp_mm contributors. Apache-2.0.
# COCO with large-scale jitter in crops of 896 px, 64 patches of 14 px.
_base_ = './coco_lsj-1024px.py'

image_size = (896, 896)
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[3].scale = train_pipeline[4].crop_size = test_pipeline[1].scale = image_size
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
