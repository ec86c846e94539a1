# Copyright (c) addp_mm contributors. Apache-2.0.
# cDPO, the form of the released code: a log-sigmoid at each position, and the mean over them.
_base_ = './cdpo_addp-vit-nano-p8_class-cond_1xb4-fp32-200i_fashion-scenes-64px.py'

model = dict(loss=dict(form='token'))
