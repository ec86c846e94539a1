# Copyright (c) addp_mm contributors. Apache-2.0.
# FashionScenes: images of one garment, 64 px. To write them:
# python tools/dataset_converters/fashion_scenes.py data/fashion_scenes
dataset_type = 'CustomDataset'
data_root = 'data/fashion_scenes/'
metainfo = dict(
    classes=['ankle-boot', 'bag', 'coat', 'dress', 'pullover', 'sandal', 'shirt', 'sneaker', 't-shirt', 'trouser']
)
data_preprocessor = dict(num_classes=10, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)

train_pipeline = [
    dict(type='addp_mm.SeedAugmentation'),
    dict(type='addp_mm.LoadImage'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='addp_mm.LoadImage'),
    dict(type='Resize', scale=(64, 64)),  # images of the dataset have this size, but yours may not
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='addp_mm.ResumableInfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type, data_root=data_root, data_prefix='objects/train', metainfo=metainfo, pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix='objects/val',
        metainfo=metainfo,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
