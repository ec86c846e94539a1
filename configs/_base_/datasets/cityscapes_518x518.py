# Copyright (c) addp_mm contributors. Apache-2.0.
# Cityscapes in crops of 518 px, 37 patches of 14 px.
_base_ = './cityscapes_512x512.py'

crop_size = (518, 518)
train_pipeline = _base_.train_pipeline
train_pipeline[3].crop_size = crop_size
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
