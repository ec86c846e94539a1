# Copyright (c) addp_mm contributors. Apache-2.0.
# Cityscapes, 19 classes, in crops of 768 px, as SETR and Segmenter train plain ViTs. The pipelines
# have the same transforms as those of ADE20K.
_base_ = './ade20k_512x512.py'

dataset_type = 'CityscapesDataset'
data_root = 'data/cityscapes/'
crop_size = (768, 768)
scale = (2048, 1024)

train_pipeline, test_pipeline, tta_pipeline = _base_.train_pipeline, _base_.test_pipeline, _base_.tta_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = scale
train_pipeline[3].crop_size = crop_size
tta_pipeline[1].transforms[0] = [
    dict(type='Resize', scale=(int(2048 * ratio), int(1024 * ratio)), keep_ratio=True)
    for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
]

train_dataloader = dict(
    batch_size=1,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
