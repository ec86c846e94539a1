# Copyright (c) addp_mm contributors. Apache-2.0.
# The same on random features, to compare with pre-training.
_base_ = './linear_addp-vit-nano-p8_1xb16-fp32-400i_fashion-scenes-64px.py'

model = dict(backbone=dict(init_cfg=None))
