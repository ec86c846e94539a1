# Copyright (c) addp_mm contributors. Apache-2.0.
# cDPO with weights by the rank of a token's score in its image. Codes of images are unsure: most
# scores are near 0, so that the weights 1 - score are all near 1.
_base_ = './cdpo_addp-vit-nano-p8_class-cond_1xb4-fp32-200i_fashion-scenes-64px.py'

model = dict(weights='rank')
