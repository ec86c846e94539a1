# Copyright (c) addp_mm contributors. Apache-2.0.
# ResNet with the weights of torchvision.
_base_ = './timm.py'

model = dict(
    backbone=dict(model='resnet101.tv_in1k', frozen_stages=4), decode_head=dict(in_channels=[256, 512, 1024, 2048])
)
