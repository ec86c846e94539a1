# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './timm.py'

model = dict(
    backbone=dict(model='convnext_base.fb_in22k', frozen_stages=4), decode_head=dict(in_channels=[128, 256, 512, 1024])
)
