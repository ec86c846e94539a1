# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './timm.py'

model = dict(
    backbone=dict(model='maxvit_tiny_tf_224.in1k', frozen_stages=4), decode_head=dict(in_channels=[64, 128, 256, 512])
)
