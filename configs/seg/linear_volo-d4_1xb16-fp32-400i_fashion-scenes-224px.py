# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['../_base_/linear_seg/volo-d4.py', '../_base_/linear_seg/fashion-scenes-224px.py']

model = _base_.on_scenes
