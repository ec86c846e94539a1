# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['../_base_/linear_seg/addp-vit-nano-p8.py', '../_base_/linear_seg/fashion-scenes.py']

model = _base_.on_scenes
