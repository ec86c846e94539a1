# Copyright (c) addp_mm contributors. Apache-2.0.
# The same model and schedule from random weights, to compare with pre-training.
_base_ = './upernet_addp-vit-nano-p8_ft_1xb16-fp32-400i_fashion-scenes-64px.py'

model = dict(backbone=dict(init_cfg=None))
