# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './timm.py'

model = dict(
    backbone=dict(model='hiera_base_224.mae', frozen_stages=4), decode_head=dict(in_channels=[96, 192, 384, 768])
)
