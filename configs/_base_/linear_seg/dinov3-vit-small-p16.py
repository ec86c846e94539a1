# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './timm.py'

model = dict(
    backbone=dict(model='vit_small_patch16_dinov3.lvd1689m', frozen_stages=12), decode_head=dict(in_channels=[384])
)
