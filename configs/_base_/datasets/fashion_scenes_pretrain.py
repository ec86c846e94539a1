# Copyright (c) addp_mm contributors. Apache-2.0.
# FashionScenes without labels, 64 px. To write them:
# python tools/dataset_converters/fashion_scenes.py data/fashion_scenes
dataset_type = 'CustomDataset'
data_root = 'data/fashion_scenes/'

train_pipeline = [
    dict(type='addp_mm.SeedAugmentation'),
    dict(type='addp_mm.LoadImage'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
val_pipeline = [dict(type='addp_mm.LoadImage'), dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='addp_mm.ResumableInfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type=dataset_type, data_root=data_root, data_prefix='scenes/train', with_label=False, pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix='scenes/val',
        with_label=False,
        test_mode=True,
        pipeline=val_pipeline,
    ),
)
