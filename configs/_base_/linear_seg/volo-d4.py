# Copyright (c) addp_mm contributors. Apache-2.0.
# Maps of stride 8, 16, 16 and 16.
_base_ = './timm.py'

model = dict(
    backbone=dict(model='volo_d4_224.sail_in1k', frozen_stages=4), decode_head=dict(in_channels=[384, 768, 768, 768])
)
