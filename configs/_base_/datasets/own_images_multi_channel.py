# Copyright (c) addp_mm contributors. Apache-2.0.
# Your own images of 1 to 16 channels: grey, several bands or pages, arrays. To change `channels`,
# copy this file: other values depend on `channels`, and a child config would not change them.
_base_ = ['own_images.py']
channels = 5

train_pipeline = [
    dict(type='addp_mm.LoadMultiChannelImage', channels=channels),
    dict(type='addp_mm.MakeView', image_size=_base_.image_size, augmentation='crop'),
    dict(type='PackInputs'),
]
val_pipeline = [
    dict(type='addp_mm.LoadMultiChannelImage', channels=channels),
    dict(type='addp_mm.MakeView', image_size=_base_.image_size, augmentation='none'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))

# one mean for all channels; three channels are loaded as BGR, other numbers in the file's order
data_preprocessor = dict(mean=[0], std=[255], to_rgb=channels == 3)
