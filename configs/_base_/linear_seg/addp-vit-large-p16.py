# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './addp-vit-base-p16.py'

model = dict(
    backbone=dict(arch='large', frozen_stages=24, init_cfg=dict(checkpoint='hf://Changyao/ADDP/addp-vit-large-16.pth')),
    decode_head=dict(in_channels=[1024]),
)
