# Copyright (c) addp_mm contributors. Apache-2.0.
# cDPO (arXiv 2411.19943), the form of the paper: the log-ratios of a sequence are summed, those of
# rejected tokens with the weight 1 - score.
_base_ = './dpo_addp-vit-nano-p8_class-cond_1xb4-fp32-200i_fashion-scenes-64px.py'

model = dict(weighted='rejected')
train_dataloader = dict(dataset=dict(scores=_base_.folder + 'scores.safetensors'))
