# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/upernet_addp-vit-base-p16.py',
    '../_base_/datasets/cityscapes_768x768.py',
    '../_base_/schedules/seg_80k.py',
]

model = dict(
    data_preprocessor=dict(size=(768, 768)),
    backbone=dict(img_size=768),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19),
    test_cfg=dict(crop_size=(768, 768), stride=(512, 512)),
)
