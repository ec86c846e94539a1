# Copyright (c) addp_mm contributors. Apache-2.0.
# A wider model with another seed: it judges garments that were tuned with the narrow one as reward.
_base_ = './resnet18-nano_from-scratch_1xb64-fp32-2k_fashion-scenes-64px.py'

channels = 16
model = dict(backbone=dict(stem_channels=channels, base_channels=channels), head=dict(in_channels=8 * channels))
randomness = dict(seed=1)
