# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./vit-base-p16.py', '../models/mae_vit-base-p16.py']

model = dict(backbone=_base_.baseline)
