# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './timm.py'

model = dict(
    backbone=dict(model='swin_small_patch4_window7_224.ms_in1k', frozen_stages=4),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
)
