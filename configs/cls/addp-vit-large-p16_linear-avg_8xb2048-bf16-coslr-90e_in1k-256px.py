# Copyright (c) addp_mm contributors. Apache-2.0.
# The feature is the mean of the patch tokens instead of the class token.
_base_ = './addp-vit-base-p16_linear-avg_8xb2048-bf16-coslr-90e_in1k-256px.py'

model = dict(
    backbone=dict(arch='large', frozen_stages=24, init_cfg=dict(checkpoint='hf://Changyao/ADDP/addp-vit-large-16.pth')),
    neck=dict(input_features=1024),
    head=dict(in_channels=1024),
)
