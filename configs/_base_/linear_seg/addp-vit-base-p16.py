# Copyright (c) addp_mm contributors. Apache-2.0.
# The frozen backbone keeps the norm after the embedding of pre-training (pre_norm=True).
_base_ = './vit-base-p16.py'

model = dict(backbone=dict(pre_norm=True))
