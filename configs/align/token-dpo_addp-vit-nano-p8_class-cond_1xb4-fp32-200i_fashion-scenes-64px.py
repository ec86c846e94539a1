# Copyright (c) addp_mm contributors. Apache-2.0.
# DPO of each token, without weights: cDPO per token in which all tokens are equally critical.
_base_ = './dpo_addp-vit-nano-p8_class-cond_1xb4-fp32-200i_fashion-scenes-64px.py'

model = dict(loss=dict(form='token'))
