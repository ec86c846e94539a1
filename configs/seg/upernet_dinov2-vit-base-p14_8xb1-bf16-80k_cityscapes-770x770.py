# Copyright (c) addp_mm contributors. Apache-2.0.
# Crops of 55 x 55 patches.
_base_ = [
    '../_base_/models/upernet_addp-vit-base-p16.py',
    '../_base_/models/dinov2_vit-base-p14.py',
    '../_base_/datasets/cityscapes_770x770.py',
    '../_base_/schedules/seg_80k.py',
]

model = dict(
    data_preprocessor=dict(size=(770, 770)),
    backbone=dict(_base_.baseline, img_size=770),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19),
    test_cfg=dict(crop_size=(770, 770), stride=(513, 513)),
)
