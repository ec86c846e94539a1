# FashionScenes without labels: whole scenes, flipped at random. Pixels stay uint8 until the data preprocessor.
data_root = 'data/fashion_scenes/'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
val_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=64, num_workers=1, persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True), collate_fn=dict(type='default_collate'), drop_last=True,
    dataset=dict(
        type='CustomDataset', data_root=data_root, data_prefix='scenes/train', with_label=False,
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64, num_workers=1, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CustomDataset', data_root=data_root, data_prefix='scenes/val', with_label=False, pipeline=val_pipeline))
