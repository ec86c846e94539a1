# Copyright (c) addp_mm contributors. Apache-2.0.
# Your own colour images without labels: all images below data/own_images/.
data_root = 'data/own_images/'
image_size = 128

train_pipeline = [
    dict(type='addp_mm.LoadImage'),
    dict(type='addp_mm.MakeView', image_size=image_size, augmentation='crop'),
    dict(type='PackInputs'),
]
val_pipeline = [
    dict(type='addp_mm.LoadImage'),
    dict(type='addp_mm.MakeView', image_size=image_size, augmentation='none'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='addp_mm.ResumableInfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='addp_mm.ImageFiles', root=data_root, split='train', val_every=50, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='addp_mm.ImageFiles', root=data_root, split='val', val_every=50, pipeline=val_pipeline),
)

data_preprocessor = dict(type='SelfSupDataPreprocessor', mean=[0] * 3, std=[255] * 3, to_rgb=True)
