# Copyright (c) addp_mm contributors. Apache-2.0.
# Cityscapes in crops of 1024 px.
_base_ = './cityscapes_768x768.py'

crop_size = (1024, 1024)
train_pipeline = _base_.train_pipeline
train_pipeline[3].crop_size = crop_size
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
