# Copyright (c) addp_mm contributors. Apache-2.0.
# mmdet's DINO with another backbone and neck. It keeps mmdet's schedule and learning rate. The
# backbone has a tenth of the learning rate, as in detrex for ViTDet backbones.
_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../_base_/models/vitdet_addp-vit-base-p16.py']
custom_imports = dict(imports=['addp_mm'])

model = dict(
    data_preprocessor=dict(pad_size_divisor=64),
    backbone=dict(_delete_=True, **_base_.backbone),
    neck=dict(_delete_=True, type='addp_mm.SimpleFPN', in_channels=768, scales=(2, 1, 0.5), num_outs=4),
)

default_hooks = dict(random_state=dict(type='addp_mm.RandomStateHook'))
