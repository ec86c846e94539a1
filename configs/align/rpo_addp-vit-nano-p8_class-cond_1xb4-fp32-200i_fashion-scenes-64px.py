# Copyright (c) addp_mm contributors. Apache-2.0.
# RPO (arXiv 2404.19733): DPO, and the likelihood of the chosen trajectory. That term keeps the
# images near those of the generator, so that a larger learning rate is of use.
_base_ = './dpo_addp-vit-nano-p8_class-cond_1xb4-fp32-200i_fashion-scenes-64px.py'

model = dict(loss=dict(likelihood_weight=3.0))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
