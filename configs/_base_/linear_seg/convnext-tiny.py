# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './timm.py'

model = dict(
    backbone=dict(model='convnext_tiny.fb_in1k', frozen_stages=4), decode_head=dict(in_channels=[96, 192, 384, 768])
)
