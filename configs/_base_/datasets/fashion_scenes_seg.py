# Copyright (c) addp_mm contributors. Apache-2.0.
# FashionScenes with label maps, 64 px. To write them: python
# tools/dataset_converters/fashion_scenes.py data/fashion_scenes As in ADE20K, 0 in a label map is
# unlabelled: reduce_zero_label converts 1 to 11 to the classes 0 to 10.
dataset_type = 'BaseSegDataset'
data_root = 'data/fashion_scenes/'
metainfo = dict(
    classes=[
        'background',
        'ankle-boot',
        'bag',
        'coat',
        'dress',
        'pullover',
        'sandal',
        'shirt',
        'sneaker',
        't-shirt',
        'trouser',
    ],
    palette=[
        [90, 90, 90],
        [230, 25, 75],
        [60, 180, 75],
        [255, 225, 25],
        [0, 130, 200],
        [245, 130, 48],
        [145, 30, 180],
        [70, 240, 240],
        [240, 50, 230],
        [210, 245, 60],
        [250, 190, 212],
    ],
)

train_pipeline = [
    dict(type='addp_mm.SeedAugmentation'),
    dict(type='addp_mm.LoadImage'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='addp_mm.LoadImage'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]

train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='addp_mm.ResumableInfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        img_suffix='.png',
        seg_map_suffix='.png',
        reduce_zero_label=True,
        data_prefix=dict(img_path='scenes/train', seg_map_path='labels/train'),
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        img_suffix='.png',
        seg_map_suffix='.png',
        reduce_zero_label=True,
        data_prefix=dict(img_path='scenes/val', seg_map_path='labels/val'),
        metainfo=metainfo,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
