# Copyright (c) addp_mm contributors. Apache-2.0.
# ADE20K in crops of 518 px, 37 patches of 14 px. Every step of the 512 px pipelines that has a size
# gets the new one.
_base_ = './ade20k_512x512.py'

crop_size = (518, 518)
scale = (2072, 518)

train_pipeline = [
    dict(step, **{key: size for key, size in dict(scale=scale, crop_size=crop_size).items() if key in step})
    for step in _base_.train_pipeline
]
test_pipeline = [
    dict(step, **{key: size for key, size in dict(scale=scale).items() if key in step}) for step in _base_.test_pipeline
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(int(scale[0] * ratio), int(scale[1] * ratio)), keep_ratio=True)
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            *_base_.tta_pipeline[1]['transforms'][1:],
        ],
    ),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
