# Copyright (c) addp_mm contributors. Apache-2.0.
# RPO with the token weights of cDPO (arXiv 2411.19943), made of the rank of a token's score in its
# image. Codes of images are unsure: most scores are near 0, so that the weights 1 - score are all
# near 1.
_base_ = './rpo_addp-vit-nano-p8_class-cond_1xb4-fp32-200i_fashion-scenes-64px.py'

model = dict(weighted='rejected', weights='rank')
train_dataloader = dict(dataset=dict(scores=_base_.folder + 'scores.safetensors'))
