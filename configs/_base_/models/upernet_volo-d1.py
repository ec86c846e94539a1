# Copyright (c) addp_mm contributors. Apache-2.0.
# UperNet of upernet_addp-vit-base-p16 with VOLO d1.
_base_ = ['./upernet_addp-vit-base-p16.py', './volo-d1_maps.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.backbone),
    neck=_base_.neck,
    decode_head=dict(in_channels=[192, 384, 384, 384], channels=512),
    auxiliary_head=dict(in_channels=384),
)
