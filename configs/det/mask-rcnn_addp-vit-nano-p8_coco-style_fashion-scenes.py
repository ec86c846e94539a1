# Copyright (c) addp_mm contributors. Apache-2.0.
# mmdet's Mask R-CNN with another backbone, neck and dataset. It also works with mmdet's own tools.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['addp_mm'])

# Backbone and neck: maps of stride 4, 8, 16, 32 and 64, which the heads expect.
model = dict(
    backbone=dict(
        _delete_=True,
        type='addp_mm.ADDPViT',
        arch='nano',
        img_size=64,
        patch_size=8,
        out_type='featmap',
        pre_norm=True,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint='addp_mm://addp_nano-p8.safetensors', prefix='backbone.'),
    ),
    neck=dict(_delete_=True, type='addp_mm.SimpleFPN', in_channels=128, scales=(2, 1, 0.5), num_outs=5),
    roi_head=dict(bbox_head=dict(num_classes=10), mask_head=dict(num_classes=10)),
)

# Data
data_root = 'data/fashion_scenes/'
metainfo = dict(
    classes=['ankle-boot', 'bag', 'coat', 'dress', 'pullover', 'sandal', 'shirt', 'sneaker', 't-shirt', 'trouser']
)
train_pipeline = [
    dict(type='addp_mm.LoadImage'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='addp_mm.LoadImage'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='scenes/train/'),
        metainfo=metainfo,
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='scenes/val/'),
        metainfo=metainfo,
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

default_hooks = dict(random_state=dict(type='addp_mm.RandomStateHook'))
