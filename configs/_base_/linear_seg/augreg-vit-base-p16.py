# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['./vit-base-p16.py', '../models/augreg_vit-base-p16.py']

model = dict(data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]), backbone=_base_.baseline)
