# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['../_base_/linear_seg/swin-tiny.py', '../_base_/linear_seg/fashion-scenes.py']

model = _base_.small
