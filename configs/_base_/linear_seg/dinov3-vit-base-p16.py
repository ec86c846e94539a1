# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./timm.py', '../models/dinov3_vit-base-p16.py']

model = dict(backbone=dict(_base_.baseline, frozen_stages=12))
