# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = ['../_base_/linear_seg/mae-vit-base-p16.py', '../_base_/linear_seg/fashion-scenes-224px.py']

model = dict(_base_.on_scenes, backbone=dict(img_size=224))
